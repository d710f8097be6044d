"""The socket of those who may look and not act: members of the host's group read the status there.

Everybody else reads it from shared memory, which holds tasks' payloads and is therefore the host's user's and root's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ajhost.adapters.linux import local_server, runtime_directory

_MOST = 16
"""Readers at once; more are turned away."""


async def serve(runtime: Path, status: Callable[[], bytes]) -> asyncio.Server:
    """Listens on `<runtime>/view`, for the owner of the directory, its group and root: one JSON text for each."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # nothing is asked
        writer.write(status())

    return await local_server.listen(runtime / runtime_directory.VIEW, 0o660, _MOST, answer)
