"""Serves the sockets of the runtime directory: `control` for operators' commands, `view` for readers of the status.
Decides who may use them, how many at once and for how long; tells an action who asked (user and pid). Refuses a command
that means another settings file, or that nobody waits for any more.

At `view` members of the host's group, who may not act, read the status. The host's user and root read it from shared
memory, which no other user may: it holds tasks' payloads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from ajhost.adapters.linux import runtime_directory
from ajhost.core.timings import LOCAL_CLIENT_LIMIT
from ajhost.roles.supervisor import state_file

_MOST = 32
"""Clients at once; further ones get a refusal. A reload's client waits until the reload is decided."""
_MOST_VIEWERS = 16
"""Readers of the status at once; further ones are disconnected."""
_log = logging.getLogger("ajhost.supervisor")


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a request: whether it was carried out, and why (not)."""

    taken: bool
    text: str


def no_worker(slot: object) -> Decision:
    """Returns the refusal of a request for a slot, or for every slot (None), in which no worker lives."""
    return Decision(False, "no worker lives" if slot is None else f"no worker lives in slot {slot}")


Action = Callable[[Mapping[str, object]], Awaitable[Decision]]
Actions = Mapping[str, Action]
"""What can be requested, by name. An action carries out a request, which has as `by` the peer that sent it."""


async def serve(runtime: Path, settings: Path, actions: Actions) -> asyncio.Server:
    """Listens on `<runtime>/control`, for the owner of the directory and root. One JSON line in, one out.

    A client may name the settings file that it means; a host that runs on another than `settings` refuses then.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decision = await decided(await _asked(reader), writer)
        writer.write(_line(decision))

    async def decided(asked: Mapping[str, object], writer: asyncio.StreamWriter) -> Decision:
        if (action := actions.get(str(asked.get("ask")))) is None:
            return Decision(False, "no request that this host knows, or one of more than 64 KiB")
        late = ", who waits no more: not done" if _has_gone(writer) else ""
        peer = _peer(writer)
        _log.info("%s asked for by %s%s", asked["ask"], peer, late)
        if late:
            return Decision(False, "nobody waits for it any more")
        meant = asked.get("settings")
        if isinstance(meant, str) and (other := state_file.another_host(runtime, settings, meant)) is not None:
            return Decision(False, other)
        try:
            return await action({**asked, "by": peer})
        except Exception as error:
            _log.exception("%s failed", asked["ask"])
            return Decision(False, f"the host could not do it: {error}")

    busy = _line(Decision(False, f"{_MOST} others ask at the same time"))
    return await listen(runtime / runtime_directory.CONTROL, 0o600, _MOST, answer, busy)


async def serve_view(runtime: Path, status: Callable[[], bytes]) -> asyncio.Server:
    """Listens on `<runtime>/view`, for the owner of the directory, its group and root. Sends each one JSON text."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # clients send nothing
        writer.write(status())

    return await listen(runtime / runtime_directory.VIEW, 0o660, _MOST_VIEWERS, answer)


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Reads one client's question, and writes the answer. It may raise OSError for a client that is gone."""


async def listen(path: Path, mode: int, most: int, talk: Conversation, refusal: bytes = b"") -> asyncio.Server:
    """Listens on `path` with the permissions `mode`. Sends `refusal` to a client beyond `most` at once, and closes.

    Disconnects a client that does not read the whole answer within `LOCAL_CLIENT_LIMIT`: its descriptor and the rest of
    its answer would be kept for ever.
    """
    path.unlink(missing_ok=True)
    clients = 0

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal clients
        clients += 1
        try:
            with contextlib.suppress(OSError):
                if clients > most:
                    writer.write(refusal)
                else:
                    await talk(reader, writer)
        finally:
            writer.close()
            try:
                async with asyncio.timeout(LOCAL_CLIENT_LIMIT):
                    await writer.wait_closed()
            # asyncio's streams would report a task's cancellation as an error
            except (OSError, TimeoutError, asyncio.CancelledError):
                writer.transport.abort()
            clients -= 1

    server = await asyncio.start_unix_server(attend, str(path))
    path.chmod(mode)
    return server


async def _asked(reader: asyncio.StreamReader) -> Mapping[str, object]:
    """Returns the request; an empty one if the line is none, or was not whole in time."""
    try:
        async with asyncio.timeout(LOCAL_CLIENT_LIMIT):
            asked = orjson.loads(await reader.readline())
    except (ValueError, TimeoutError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _line(decision: Decision) -> bytes:
    return orjson.dumps({"taken": decision.taken, "text": decision.text}) + b"\n"


def _has_gone(writer: asyncio.StreamWriter) -> bool:
    """Whether the client has given up. This process hung meanwhile, and the client reported that it has no answer."""
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLHUP)
    return bool(poll.poll(0))


def _peer(writer: asyncio.StreamWriter) -> str:
    """Returns the client's user and pid as the kernel knows them (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, user, _ = struct.unpack("3i", peer)
    return f"user {user} (pid {pid})"
