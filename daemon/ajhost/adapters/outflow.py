"""What leaves through a connection: operations of nats-py, and replies that survive the connection.

A ledger entry is released once the kernel took its reply. The kernel is not the server: a reply is kept in memory until
a PONG confirms that the server has read it, and goes out again after a reconnect. A second answer is harmless (the
router's inbox is one-shot and unique), a missing one is not.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from ajhost.adapters.tls import Sealed

PING = b"PING\r\n"
_KEPT_BYTES = 8 << 20
"""Bytes of unconfirmed replies that are kept for a reconnect; the oldest go first."""
_FRAGILE_SECONDS = 3.0
"""For so long after a server was restarted the requester may not be back itself: replies are sent again later."""
_AGAIN_AFTER = (1.0, 2.5)


class Outflow:
    """`released(entries)`: the kernel has their replies. `broken(error)`: the connection takes no more bytes."""

    def __init__(self, released: Callable[[list[int]], None], broken: Callable[[OSError], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_released, self._on_broken = released, broken
        self._sock: socket.socket | None = None
        self.sealed: Sealed | None = None
        self._up = self._kicked = self._asking = False
        self._commands: list[bytes] = []
        self._replies: list[bytes] = []
        self._entries: list[int] = []
        self._rest = memoryview(b"")
        self._rest_entries: list[int] = []
        self._room: asyncio.Future[None] | None = None
        self._mark = 0
        self._pings: deque[int | None] = deque()
        self._recent: deque[tuple[int, bytes]] = deque()
        self._recent_size = 0
        self._fragile_until = 0.0
        self._repeats = 0

    # -- a connection's life --------------------------------------------------------------------

    def attach(self, sock: socket.socket) -> None:
        """A new connection; operations leave at once, replies when the server has accepted us."""
        self._sock, self.sealed = sock, None
        self._asking = False
        self._pings.clear()
        self._commands.clear()

    def came_up(self, moved: bool) -> None:
        """The server accepted us: what an earlier connection may have lost goes out again, then what waited.

        `moved`: it is not the server of before, so that requesters have to come back as well.
        """
        self._up = True
        self._pings.clear()
        if moved:
            self._fragile_until = self._loop.time() + _FRAGILE_SECONDS
        unsure = [data for _, data in self._recent]
        self._recent.clear()
        self._recent_size = 0
        self._replies[:0] = unsure
        self.kick()

    def detach(self) -> None:
        """The connection has ended. What the kernel did not take stays, with its entries, for the next one."""
        if self._rest and self._sock is not None:
            self._loop.remove_writer(self._sock)
        self._sock, self._up = None, False
        self._entries[:0] = self._rest_entries
        self._rest, self._rest_entries = memoryview(b""), []
        self._make_room()

    # -- what is to leave -----------------------------------------------------------------------

    def command(self, data: bytes) -> None:
        """Queues an operation of nats-py."""
        if data == PING:
            self._pings.append(None)
        self._commands.append(data)
        self.kick()

    def reply(self, index: int, data: bytes) -> None:
        """Queues the reply for a ledger entry."""
        self._replies.append(data)
        self._entries.append(index)
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self.flush)

    def publish(self, data: bytes) -> None:
        """Queues a reply for a request that has no entry of ours."""
        self._replies.append(data)
        self.kick()

    def confirm(self) -> None:
        """Asks the server whether it has what was sent since it was last asked."""
        if self._up and self._recent and self._recent[-1][0] == self._mark:
            self._asking = True
            self.kick()

    def pong(self) -> bool:
        """A PONG came: whether it was ours (or nats-py's, which then must see it)."""
        mark = self._pings.popleft() if self._pings else None
        if mark is None:
            return False
        while self._recent and self._recent[0][0] <= mark:
            self._recent_size -= len(self._recent.popleft()[1])
        return True

    @property
    def unsent(self) -> bool:
        """Whether replies wait for the kernel or for a connection."""
        return bool(self._replies or self._rest)

    @property
    def unconfirmed(self) -> bool:
        """Whether the server may not have everything that was sent, or its requester may not have been there."""
        return bool(self._recent or self._repeats)

    async def drain(self) -> None:
        """Waits until the kernel took what was queued, or the connection is gone."""
        self.flush()
        while self._rest:
            self._room = self._room or self._loop.create_future()
            await self._room

    # -- how it leaves --------------------------------------------------------------------------

    def kick(self) -> None:
        """Flushes at the end of this turn of the loop, so that its replies leave in one call."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Writes what is queued, as far as the kernel takes it."""
        self._kicked = False
        sock = self._sock
        if sock is None or self._rest:
            return
        data, entries = b"", []
        if self._up and self._replies:
            data = b"".join(self._replies)
            entries = self._entries
            self._replies, self._entries = [], []
            self._keep(data)
        if self._commands:
            data = b"".join(self._commands) + data
            self._commands.clear()
        if self._asking:  # after the replies: its PONG confirms them
            self._asking = False
            self._pings.append(self._mark)
            self._mark += 1
            data += PING
        if not data:
            return
        if self.sealed is not None:
            data = self.sealed.seal(data)
        try:
            sent = sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._entries[:0] = entries
            self._on_broken(error)
            return
        if sent == len(data):
            self._on_released(entries)
        else:
            self._rest, self._rest_entries = memoryview(data)[sent:], entries
            self._loop.add_writer(sock, self._writable)

    def _writable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            sent = sock.send(self._rest)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._on_broken(error)
            return
        self._rest = self._rest[sent:]
        if self._rest:
            return
        self._loop.remove_writer(sock)
        entries, self._rest_entries = self._rest_entries, []
        self._on_released(entries)
        self._make_room()
        self.flush()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _keep(self, data: bytes) -> None:
        self._recent.append((self._mark, data))
        self._recent_size += len(data)
        while self._recent_size > _KEPT_BYTES and len(self._recent) > 1:
            self._recent_size -= len(self._recent.popleft()[1])
        if self._fragile_until and self._loop.time() < self._fragile_until:
            for delay in _AGAIN_AFTER:
                self._repeats += 1
                self._loop.call_later(delay, self._send_again, data)

    def _send_again(self, data: bytes) -> None:
        self._repeats -= 1
        if self._up:
            self._commands.append(data)
            self.kick()
