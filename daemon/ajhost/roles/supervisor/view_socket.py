"""Serves the socket at which members of the host's group, who may not act, read the status.

The host's user and root read it from shared memory, which no other user may: it holds tasks' payloads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ajhost.adapters.linux import local_server, runtime_directory

_MOST = 16
"""Readers at once; further ones are disconnected."""


async def serve(runtime: Path, status: Callable[[], bytes]) -> asyncio.Server:
    """Listens on `<runtime>/view`, for the owner of the directory, its group and root. Sends each one JSON text."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # clients send nothing
        writer.write(status())

    return await local_server.listen(runtime / runtime_directory.VIEW, 0o660, _MOST, answer)
