"""The control socket: `ajhost reload` asks here and gets the decision. One JSON line in, one out."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson

from ajhost.roles.supervisor.reload import Decision

NAME = "control"


async def serve(runtime: Path, settings: Path, reload: Callable[[], Awaitable[Decision]]) -> asyncio.Server:
    """Listens on `<runtime>/control`, for the owner of the directory and root.

    Who asks tells the file of settings that they mean; a host that runs on another, `settings`, refuses.
    """
    path = runtime / NAME
    path.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            asked = orjson.loads(await reader.readline())
            if isinstance(asked, dict) and asked.get("ask") == "reload":
                meant = asked.get("settings")
                if isinstance(meant, str) and os.path.realpath(meant) != os.path.realpath(settings):
                    decision = Decision(False, f"the host on {runtime} runs on {settings}, not on {meant}")
                else:
                    decision = await reload()
                body = {"taken": decision.taken, "text": decision.text}
            else:
                body = {"taken": False, "text": "unknown request"}
            writer.write(orjson.dumps(body) + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    path.chmod(0o600)
    return server
