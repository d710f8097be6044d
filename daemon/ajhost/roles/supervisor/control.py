"""The control socket: commands that have the host do something ask here. One JSON line in, one out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

NAME = "control"
_log = logging.getLogger("ajhost.supervisor")


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of something that was asked for: whether it was done, and why (not)."""

    taken: bool
    text: str


Action = Callable[[Mapping[str, object]], Awaitable[Decision]]
Actions = Mapping[str, Action]
"""What can be asked for, by name; each gets the whole request."""


async def serve(runtime: Path, settings: Path, actions: Actions) -> asyncio.Server:
    """Listens on `<runtime>/control`, for the owner of the directory and root.

    Who asks tells the file of settings that they mean; a host that runs on another, `settings`, refuses.
    """
    path = runtime / NAME
    path.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            asked = orjson.loads(await reader.readline())
            if isinstance(asked, dict) and (action := actions.get(str(asked.get("ask")))) is not None:
                meant = asked.get("settings")
                late = ", who waits no more: not done" if _has_gone(writer) else ""
                _log.info("%s asked for by %s%s", asked["ask"], _peer(writer), late)
                if late:
                    decision = Decision(False, "nobody waits for it any more")
                elif isinstance(meant, str) and os.path.realpath(meant) != os.path.realpath(settings):
                    decision = Decision(False, f"the host on {runtime} runs on {settings}, not on {meant}")
                else:
                    decision = await _done(action, asked)
                body = {"taken": decision.taken, "text": decision.text}
            else:
                body = {"taken": False, "text": "unknown request"}
            writer.write(orjson.dumps(body) + b"\n")
            await writer.drain()
        writer.close()

    async def _done(action: Action, asked: Mapping[str, object]) -> Decision:
        try:
            return await action(asked)
        except Exception as error:
            _log.exception("%s failed", asked["ask"])
            return Decision(False, f"the host could not do it: {error}")

    def _has_gone(writer: asyncio.StreamWriter) -> bool:
        """Whether who asked has given up: this process hung meanwhile, and they were told that it gives no answer."""
        poll = select.poll()
        poll.register(writer.get_extra_info("socket").fileno(), select.POLLHUP)
        return bool(poll.poll(0))

    def _peer(writer: asyncio.StreamWriter) -> str:
        """Who asks, as the kernel knows it (SO_PEERCRED, unix(7))."""
        size = struct.calcsize("3i")
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, user, _ = struct.unpack("3i", peer)
        return f"user {user} (pid {pid})"

    server = await asyncio.start_unix_server(answer, str(path))
    path.chmod(0o600)
    return server
