"""The socket of those who may look and not act: members of the host's group read the status there.

Everybody else reads it from shared memory, which holds tasks' payloads and is therefore the host's user's and root's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from ajhost.core.timings import VIEW_LIMIT

NAME = "view"
_MOST = 16
"""Readers at once; more are turned away."""


async def serve(runtime: Path, status: Callable[[], bytes]) -> asyncio.Server:
    """Listens on `<runtime>/view`, for the owner of the directory, its group and root: one JSON text for each."""
    path = runtime / NAME
    path.unlink(missing_ok=True)
    readers = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal readers
        del reader  # nothing is asked
        readers += 1
        try:
            if readers <= _MOST:
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(VIEW_LIMIT):
                        writer.write(status())
                        await writer.drain()
        finally:
            readers -= 1
            writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    path.chmod(0o660)
    return server
