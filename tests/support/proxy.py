"""A TCP proxy between a host and its server: the network's faults, at a test's word."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER without a wait: closing sends RST, whatever was read."""


class Direction(Enum):
    """Which way bytes go."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class Mood(Enum):
    """What becomes of bytes, and of new connections."""

    FORWARD = "forward"
    STALL = "stall"
    """Kept until the mood changes, as in a network that drops packets and sends them again."""
    SWALLOW = "swallow"
    """Taken and thrown away: a peer that is gone behind a middlebox that acknowledges for it."""
    REFUSE = "refuse"
    """Every connection ends at once."""


Change = Callable[[Direction, bytes], bytes]
"""What becomes of a piece on its way."""


class Partition:
    """Forwards to `target_port` of 127.0.0.1 until told otherwise.

    `stall` keeps connections open and forwards nothing, in both directions, as a network that drops packets; what was
    sent meanwhile arrives after `heal`. `cut` ends every connection, `reset` by RST, `refuse` also every new one.
    """

    def __init__(self, target_port: int) -> None:
        self.target = target_port
        """Where new connections go, on 127.0.0.1."""
        self._mood = Mood.FORWARD
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._holed: set[asyncio.Task[None]] = set()
        """Connections of which something was swallowed."""
        self._server: asyncio.Server | None = None
        self.delay = 0.0
        """Seconds by which each piece is late, in each direction."""
        self.rate = 0
        """Bytes a second that pass in each direction, 0 for as many as come."""
        self.change: Change | None = None
        """Alters each piece: corruption, other greetings."""
        self.cut_after: int | None = None
        """Connections made from now on end by RST once so many bytes went to the client, in the midst of a line too."""
        self.taken = 0
        """How many connections were ever taken."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Where clients connect, on 127.0.0.1."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def _become(self, mood: Mood) -> None:
        self._mood = mood
        if mood is Mood.STALL:
            self._flowing.clear()
        else:
            self._flowing.set()

    def stall(self) -> None:
        """Forwards nothing from now on."""
        self._become(Mood.STALL)

    def swallow(self) -> None:
        """Takes everything from now on and forwards nothing, ever; new connections are taken and hear nothing."""
        self._become(Mood.SWALLOW)

    def heal(self) -> None:
        """Forwards again, and takes new connections again. Those of which something was swallowed end."""
        self.delay, self.rate, self.change, self.cut_after = 0.0, 0, None, None
        self._become(Mood.FORWARD)
        for connection in self._holed:
            connection.cancel()

    async def cut(self) -> None:
        """Ends every connection. New ones are taken."""
        for connection in (ending := tuple(self._connections)):
            connection.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def reset(self) -> None:
        """Ends every connection by RST. New ones are taken."""
        for client in self._clients:
            _linger(client)
        await self.cut()

    async def refuse(self) -> None:
        """Ends every connection, and each new one at once, until `heal`."""
        self._become(Mood.REFUSE)
        await self.cut()

    def inject(self, data: bytes) -> None:
        """Bytes to every client, between whatever the server sends."""
        for client in self._clients:
            client.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        if self._mood is Mood.REFUSE:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._clients.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            if self._mood is Mood.SWALLOW:
                self._holed.add(task)
                while await reader.read(65536):
                    pass
                return
            back, other = await asyncio.open_connection("127.0.0.1", self.target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(task, reader, other, Direction.TO_SERVER, None))
                both.create_task(self._forward(task, back, writer, Direction.TO_CLIENT, self.cut_after))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            if other is not None:
                other.transport.abort()
            self._clients.discard(writer)
            self._connections.discard(task)
            self._holed.discard(task)

    async def _forward(
        self,
        connection: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        direction: Direction,
        left: int | None,
    ) -> None:
        while piece := await reader.read(65536):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.rate:
                await asyncio.sleep(len(piece) / self.rate)
            await self._flowing.wait()
            if self._mood is Mood.SWALLOW:
                self._holed.add(connection)
                continue
            if self.change is not None:
                piece = self.change(direction, piece)
            if left is not None and len(piece) >= left:
                writer.write(piece[:left])
                await writer.drain()
                _linger(writer)
                raise ConnectionResetError("cut, as asked for")
            left = None if left is None else left - len(piece)
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


def _linger(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class BlackHole:
    """An address that takes no connection and refuses none: SYNs to it are dropped, as by a firewall.

    A listening socket whose queue is full, which Linux does to it by itself.
    """

    def __init__(self, address: str, port: int = 0) -> None:
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._address, self._wanted = address, port
        self._sockets: list[socket.socket] = []

    @property
    def port(self) -> int:
        """Where nobody answers."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    @property
    def where(self) -> str:
        """`address:port`, as INFO has it."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"{host}:{self.port}"

    def __enter__(self) -> Self:
        listening = socket.socket(self._family)
        self._sockets.append(listening)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self._address, self._wanted))
        listening.listen(0)
        filler = socket.create_connection((self._address, self.port), timeout=5)
        self._sockets.append(filler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in self._sockets:
            sock.close()
