"""A server on a Unix socket. Its clients may be many, slow, or gone: what they cost is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from ajhost.core.timings import LOCAL_CLIENT_LIMIT

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Reads what one client asks, and writes the answer. It may raise OSError for a client who is gone."""


async def listen(
    path: Path, mode: int, most: int, talk: Conversation, refusal: bytes = b""
) -> asyncio.Server:
    """Listens on `path`, whose permissions are `mode`. More than `most` clients at once get `refusal` and the end.

    A client who does not take the whole answer within `LOCAL_CLIENT_LIMIT` is cut off: its descriptor and what waits
    for it would be kept for ever.
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
            # asyncio's streams report a task's cancellation
            except (OSError, TimeoutError, asyncio.CancelledError):
                writer.transport.abort()
            clients -= 1

    server = await asyncio.start_unix_server(serve, str(path))
    path.chmod(mode)
    return server
