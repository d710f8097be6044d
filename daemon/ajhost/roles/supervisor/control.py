"""The control socket: `ajhost reload` asks here and gets the decision. One JSON line in, one out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson

from ajhost.roles.supervisor.reload import Decision

NAME = "control"


async def serve(runtime: Path, reload: Callable[[], Awaitable[Decision]]) -> asyncio.Server:
    """Listens on `<runtime>/control`, for the owner of the directory and root."""
    path = runtime / NAME
    path.unlink(missing_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            asked = orjson.loads(await reader.readline())
            if isinstance(asked, dict) and asked.get("ask") == "reload":
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
