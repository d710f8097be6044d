"""Reads lines of a connection during the log-in, out of the receive buffer."""

from __future__ import annotations

import asyncio

from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.protocol.frames import FrameError


class LineReader:
    """Awaits lines. Call `wake` when bytes have come, and `end` when the connection has ended."""

    def __init__(self, buffer: ReceiveBuffer) -> None:
        self._buffer = buffer
        self._waiter: asyncio.Future[None] | None = None
        self._ended = True

    def begin(self) -> None:
        """Begins with a new connection."""
        self._ended = False

    def end(self) -> None:
        """Makes `next` raise when no whole line is left: no more bytes will come."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        """Wakes the reader: bytes came, or the connection has ended."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, longest: int) -> bytes:
        """Returns the next line, with its CRLF.

        :raises FrameError: when it has more than `longest` bytes. :raises ConnectionError: when there is none.
        """
        longest = min(longest, self._buffer.size - READ_SIZE)
        while True:
            data = self._buffer.unconsumed()
            end = data.find(b"\r\n")
            if end >= 0:
                self._buffer.consume(end + 2)
                return data[: end + 2]
            if len(data) > longest:
                raise FrameError(f"a line of more than {longest} bytes")
            if self._ended:
                raise ConnectionResetError("the server closed the connection")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
