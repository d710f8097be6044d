"""A peer in place of a server: sends what the test says when the test says so, and sees the end of a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ajhost.adapters.nats.transport import LedgerTransport


async def let_in(transport: LedgerTransport, sock: socket.socket) -> None:
    """A connection that is there already, and whose server says PONG first of all: it has let us in."""
    sock.setblocking(False)
    await transport.open(sock)
    assert await transport.read_answer() == b"PONG\r\n"


class Peer:
    """One connection, `theirs` its other end until somebody takes it. Whatever it sends is in the kernel at once."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.theirs = socket.create_connection(listening.getsockname())
            self._sock, _ = listening.accept()
        self._sock.setblocking(False)
        self._others: list[Callable[[], None]] = []

    def ends_with(self, close: Callable[[], None]) -> None:
        """Has somebody else closed before this end is."""
        self._others.append(close)

    def send(self, data: bytes) -> None:
        """Sends, at most what the kernel's buffers hold."""
        assert self._sock.send(data) == len(data)

    async def fill(self, data: bytes) -> None:
        """Sends as fast as the other side reads."""
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def received(self, count: int) -> bytes:
        """The next bytes that come, at least `count`."""
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(10):
            while len(data) < count and (piece := await loop.sock_recv(self._sock, 65536)):
                data += piece
        return data

    async def ended(self) -> bytes:
        """What came until the other side's end of sending."""
        loop, data = asyncio.get_running_loop(), b""
        async with asyncio.timeout(10):
            while piece := await loop.sock_recv(self._sock, 65536):
                data += piece
        return data

    def close(self) -> None:
        """An orderly end, whoever has been forked since and holds it too."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def reset(self) -> None:
        """The end that a killed server's machine makes: RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for close in self._others:
            close()
        self._sock.close()
        self.theirs.close()
