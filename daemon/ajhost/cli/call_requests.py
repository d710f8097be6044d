"""The request of `ajhost call`, signed if wanted, and its answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ajhost.cli import exit_status
from ajhost.cli.output import show_progress
from ajhost.core.timings import CALL_CONNECT_LIMIT
from ajhost.settings.sections import NatsSettings

if TYPE_CHECKING:
    from ajhost.adapters.nats.requester import Requester

COMPLETE, ERROR, TERMINATE, NO_RESPONDERS, NO_ANSWER = (
    "complete", "AJ-Error", "AJ-Terminate", "no responders", "no answer",
)  # fmt: skip
STATUS = {COMPLETE: exit_status.OK, ERROR: exit_status.NO, TERMINATE: exit_status.TERMINATED}


class Request(NamedTuple):
    """One request as a router sends it, and the id of its task."""

    id: str
    subject: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a request. `text`: that of AJ-Error or AJ-Terminate, or why there was no answer."""

    id: str
    outcome: str
    text: str
    body: bytes
    seconds: float

    @property
    def status(self) -> int:
        """Returns the exit status of a command that sent only this request."""
        return STATUS.get(self.outcome, exit_status.NO_ANSWER)

    @property
    def reason(self) -> str:
        """Returns the stable word at the beginning of an answer's error text; empty for none."""
        return self.text.partition(":")[0] if self.outcome in (ERROR, TERMINATE) else ""

    def as_object(self) -> dict[str, object]:
        """Returns the answer as `--json` prints it; a body that is no UTF-8 is `body_base64`."""
        found: dict[str, object] = {"id": self.id, "outcome": self.outcome, "seconds": round(self.seconds, 6)}
        if self.outcome != COMPLETE:
            return found | {"text": self.text}
        try:
            return found | {"body": self.body.decode()}
        except UnicodeDecodeError:
            return found | {"body_base64": base64.b64encode(self.body).decode()}


def encode(seed: bytes | None, **fields: Any) -> bytes:
    """Returns the task's JSON, signed if there is a seed."""
    from ajhost.protocol.signature import sign
    from ajhost.protocol.task_record import encode_task, read_task

    task = encode_task(**fields)
    if seed is None:
        return task
    try:
        return encode_task(**fields, signature=sign(read_task(task), seed))
    except ValueError as error:
        raise click.UsageError(f"such a task cannot be signed: {error}") from None


def read_signing_seed(file: Path) -> bytes:
    """Reads the NKEY seed of `--sign`."""
    from ajhost.protocol.signature import read_seed

    try:
        return read_seed(file.read_bytes().decode("ascii", "replace"))
    except OSError as error:
        raise click.UsageError(f"--sign: {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise click.UsageError(f"--sign: {file}: {error}") from None


def payload_of(argument: str | None) -> bytes:
    """Returns the payload that the command line gives, or names: `-` for standard input, `@FILE` for a file."""
    if argument is None:
        return b""
    if argument == "-":
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    if argument.startswith("@"):
        try:
            return Path(argument[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"{argument[1:]}: {error.strerror or error}") from None
    return os.fsencode(argument)


async def ask(nats: NatsSettings, request: Request, timeout: float) -> Answer:
    """Connects and sends one request. On a terminal it shows the subject and the time left meanwhile."""
    from ajhost.adapters.nats.connection import addresses
    from ajhost.adapters.nats.requester import ConnectFailed, Requester

    limit, begun = asyncio.timeout(timeout + CALL_CONNECT_LIMIT), time.monotonic()
    waiting = f"waiting for an answer on {request.subject}"
    try:
        async with limit, _shown(waiting, timeout), Requester(nats) as requester:
            return await ask_over(requester, request, timeout, addresses(nats), time.monotonic())
    except ConnectFailed as error:
        text = f"cannot reach {error}"
    except TimeoutError:
        text = f"cannot reach NATS at {addresses(nats)}: no connection in time"
    return Answer(request.id, NO_ANSWER, text, b"", time.monotonic() - begun)


async def ask_over(requester: Requester, request: Request, timeout: float, servers: str, due: float) -> Answer:
    from ajhost.adapters.nats.requester import NoResponders
    from ajhost.protocol.reply_encoding import error_of

    where = f"{request.subject} (NATS at {servers})"
    outcome, text, body = NO_ANSWER, "", b""
    try:
        reply = await requester.ask(request.subject, request.headers, request.body, timeout)
    except NoResponders:
        outcome, text = NO_RESPONDERS, f"no host: nobody serves {where}"
    except TimeoutError:
        text = f"no answer within {timeout:g} s on {where}"
    except Exception as error:  # the client's own errors: a payload too large, a connection that was cut
        text = f"no answer on {where}: {type(error).__name__}: {error}"
    else:
        said = error_of(reply.headers)
        outcome, text, body = (COMPLETE, "", reply.body) if said is None else (*said, b"")
    return Answer(request.id, outcome, text, body, time.monotonic() - due)


# -- on a terminal --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _shown(text: str, seconds: float) -> AsyncIterator[None]:
    """Shows a text and the seconds left on standard error, if that is a terminal, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    ticking = asyncio.create_task(_tick(text, asyncio.get_running_loop().time() + seconds))
    try:
        yield
    finally:
        ticking.cancel()
        show_progress("")


async def _tick(text: str, end: float) -> None:
    while (left := end - asyncio.get_running_loop().time()) > 0:
        show_progress(f"{text}, {left:.0f} s left")
        await asyncio.sleep(1)
