"""A TCP proxy between a host and its server: the network's faults, at a test's word."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Partition:
    """Forwards to `target_port` of 127.0.0.1 until told otherwise.

    `stall` keeps connections open and forwards nothing, in both directions, as a network that drops packets; what was
    sent meanwhile arrives after `heal`. `cut` ends every connection by a reset, `refuse` also every new one.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.delay = 0.0
        """Seconds by which each piece is late, in each direction."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def stall(self) -> None:
        """Forwards nothing from now on."""
        self._flowing.clear()

    def heal(self) -> None:
        """Forwards again, and takes new connections again."""
        self._refusing = False
        self._flowing.set()

    async def cut(self) -> None:
        """Ends every connection. New ones are taken."""
        for connection in (ending := tuple(self._connections)):
            connection.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def refuse(self) -> None:
        """Ends every connection, and each new one at once, until `heal`."""
        self._refusing = True
        await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        other: asyncio.StreamWriter | None = None
        try:
            back, other = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, other))
                both.create_task(self._forward(back, writer))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            if other is not None:
                other.transport.abort()
            self._connections.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            writer.write(piece)
            await writer.drain()
        await self._flowing.wait()
        writer.write_eof()  # the other direction has an end of its own, as our takeovers need it

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.refuse()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 5)
