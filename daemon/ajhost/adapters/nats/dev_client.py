"""NATS connections of `ajhost dev`: one observes requests and replies, one serves requests with `--debug`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ajhost.core.timings import CALL_CONNECT_LIMIT
from ajhost.protocol.secret_masking import without_userinfo

_REQUESTS = ("CHORIA_AJ.H.T.>", "CHORIA.AJ.H.T.catchall")
_REPLIES = "_INBOX.>"
_MOST = 10_000
"""Requests without a reply that are kept; at one more the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A request and the answer to it: the task's JSON, headers and body of the reply, seconds in between."""

    subject: str
    task: bytes
    headers: dict[str, str]
    body: bytes
    seconds: float


@contextlib.asynccontextmanager
async def task_tap(url: str, passed: Callable[[Passed], None]) -> AsyncIterator[None]:
    """Observes requests and replies while the block runs, and calls `passed` for each pair."""
    waiting: dict[str, tuple[float, str, bytes]] = {}

    async def request(message: Msg) -> None:
        if not message.reply:
            return
        if len(waiting) >= _MOST:
            waiting.pop(next(iter(waiting)))
        waiting[message.reply] = (time.monotonic(), message.subject, message.data)

    async def reply(message: Msg) -> None:
        if (found := waiting.pop(message.subject, None)) is not None:
            began, subject, task = found
            passed(Passed(subject, task, message.headers or {}, message.data, time.monotonic() - began))

    client = await _connect(url)
    try:
        for subject in _REQUESTS:
            await client.subscribe(subject, cb=request)
        await client.subscribe(_REPLIES, cb=reply)
        await client.flush()
        yield
    finally:
        await client.close()


async def serve(
    url: str,
    queue_group: str,
    subjects: Sequence[str],
    answer: Callable[[str, bytes], Awaitable[tuple[dict[str, str], bytes]]],
    ready: Callable[[], None],
) -> None:
    """Answers requests one after another with the headers and body that `answer(subject, body)` returns.

    Calls `ready` once it is subscribed. Returns when it is cancelled.

    :raises ConnectionError: the server cannot be reached.
    """
    client = await _connect(url)
    turn = asyncio.Lock()

    async def request(message: Msg) -> None:
        async with turn:
            headers, body = await answer(message.subject, message.data)
        if message.reply:
            await client.publish(message.reply, body, headers=headers or None)

    try:
        for subject in subjects:
            await client.subscribe(subject, queue_group, cb=request)
        await client.flush()
        ready()
        await asyncio.get_running_loop().create_future()
    finally:
        await client.close()


async def _connect(url: str) -> Client:
    try:
        # max_reconnect_attempts=-1 is for later losses; without this limit it would hold for the first connection, too
        async with asyncio.timeout(CALL_CONNECT_LIMIT):
            return await nats.connect(url, error_cb=_ignore, connect_timeout=2, max_reconnect_attempts=-1)
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
        reason = str(error) or f"no connection within {CALL_CONNECT_LIMIT:g} s"
        raise ConnectionError(f"cannot reach NATS at {without_userinfo(url)}: {reason}") from None


async def _ignore(error: Exception) -> None:
    """Drops errors of the connection: the host of the session logs its own."""
