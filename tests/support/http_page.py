"""A page of an HTTP server on this machine, without a thread and without a look-up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: status, headers as they came, text."""

    status: int
    head: str
    text: str


async def fetch(listen: str, path: str, timeout: float = 30.0) -> Page:
    """GET. `listen` is `address:port`. Raises OSError, TimeoutError among them, without an answer."""
    host, _, port = listen.rpartition(":")
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {listen}\r\nConnection: close\r\n\r\n".encode())
            whole = await reader.read()
        finally:
            writer.transport.abort()
    head, separator, body = whole.partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionResetError(f"http://{listen}{path}: no answer")
    return Page(int(head.split()[1]), head.decode("latin-1"), body.decode())
