"""A server on a Unix socket that bounds the cost of its clients, however many, slow, or gone they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from ajhost.core.timings import LOCAL_CLIENT_LIMIT

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Reads one client's question, and writes the answer. It may raise OSError for a client that is gone."""


async def listen(path: Path, mode: int, most: int, talk: Conversation, refusal: bytes = b"") -> asyncio.Server:
    """Listens on `path` with the permissions `mode`. Sends `refusal` to a client beyond `most` at once, and closes.

    Disconnects a client that does not read the whole answer within `LOCAL_CLIENT_LIMIT`: its descriptor and the rest of
    its answer would be kept for ever.
    """
    path.unlink(missing_ok=True)
    clients = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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

    server = await asyncio.start_unix_server(serve, str(path))
    path.chmod(mode)
    return server
