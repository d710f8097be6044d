"""Writes operations and replies to a connection. Replies survive the connection: each is kept until the server has
confirmed it. Finds that more than 32 MiB of replies wait, so that no request is read or started.

A reply that the kernel has taken may not have reached the server, nor the requester. So its ledger entry is released
when the server has read it, and it may be sent again (`core/retransmit.py`).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ajhost.adapters.linux import sockets
from ajhost.adapters.nats.interfaces import Sink
from ajhost.adapters.nats.refused_replies import RefusedReplies
from ajhost.adapters.nats.tls import TlsSession
from ajhost.core.retransmit import RetransmitBuffer
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.writer import LedgerWriter

PING, _PONG = b"PING\r\n", b"PONG\r\n"
_MOST_UNSENT = 32 << 20
"""Bytes of replies that may wait for the kernel, or for a connection, before nothing more is read or started."""
_ASK_EVERY = 128
"""With this many unconfirmed entries the server is asked at once, and not at the next `confirm`."""


class WriterEvents(Protocol):
    """What the writer reports to `LedgerTransport`."""

    def release(self, entries: list[int]) -> None:
        """Frees these entries: the confirmation of their replies has come, or is not awaited any more."""

    def write_failed(self, error: OSError) -> bool:
        """Called when a write fails. Returns whether to try again on another descriptor: else the connection ended."""


class ReplyWriter:
    def __init__(self, ledger: LedgerWriter, restart_window: RestartWindow, events: WriterEvents, sink: Sink) -> None:
        self._loop = asyncio.get_running_loop()
        self._ledger, self._events, self._sink = ledger, events, sink
        self._sock: socket.socket | None = None
        self.tls: TlsSession | None = None
        self._connected = self._flush_scheduled = False
        self._releasing = False
        self._mark: int | None = None
        self._commands: list[bytes] = []
        self._replies: list[bytes] = []
        self._entries: list[int] = []
        self._refusals = RefusedReplies(ledger, sink)
        self._may_be_too_large = False
        self._asked_before = 0.0
        self.flooded = False
        """The last result of `is_flooded`."""
        self._repeated: list[bytes] = []
        """The part of the replies that is repeated, since requesters may not have reconnected."""
        self._unwritten = memoryview(b"")
        self._unwritten_entries: list[int] = []
        self._drained = asyncio.Event()
        self._pings: deque[int | asyncio.Future[bool] | None] = deque()
        self._restart_window = restart_window
        self.retransmit = RetransmitBuffer(restart_window)
        """Replies that were sent and may have to be sent again. Other modules only read it."""
        self._ended = self._loop.time()

    # -- a connection's life --------------------------------------------------------------------

    def attach(self, sock: socket.socket) -> None:
        """Takes a new connection. Operations are written at once, replies when the server has accepted the log-in."""
        self._sock, self.tls = sock, None
        self._mark = None
        self._releasing = False
        self._forget_pings()
        self._commands.clear()

    def suspend(self) -> None:
        """Writes nothing until the next connection: there is no descriptor any more."""
        if self._unwritten and self._sock is not None:
            self._loop.remove_writer(self._sock)
            self._unwritten, self._unwritten_entries = memoryview(b""), []
        self._sock = None
        self._drained.set()

    def replace(self, sock: socket.socket) -> None:
        """Goes on with another descriptor of the same connection."""
        if self._unwritten and self._sock is not None:
            self._loop.remove_writer(self._sock)
            self._loop.add_writer(sock, self._writable)
        self._sock = sock

    def reconnected(self, server_changed: bool) -> None:
        """Called after a log-in: writes again what an earlier connection may have lost, then the replies that waited.

        `server_changed`: this is another server than before, so requesters have to reconnect as well.
        """
        self._connected = True
        self._forget_pings()
        now = self._loop.time()
        unsure = self.retransmit.reconnected(now, now - self._ended if server_changed else None)
        self._replies[:0] = [data for data, _ in unsure]
        self._entries[:0] = [index for _, entries in unsure for index in entries]
        if self._refusals.takes_less:
            self._replies = [self._refusals.fit(data, self._entries) for data in self._replies]
            self.retransmit.rewrite(lambda data: self._refusals.fit(data, []))
        self._asked_before = self._restart_window.asked_before(now)
        self._repeated = list(self._replies) if self._asked_before else []
        self.schedule_flush()

    def set_limits(self, max_payload: int, of_all: int) -> None:
        """Sets the present server's limits (`RefusedReplies.set_limits`)."""
        self._may_be_too_large = self._refusals.set_limits(max_payload, of_all)

    def refused(self, subject: bytes, why: str) -> None:
        """Gives up the reply on this subject, which the server has refused, and frees its entry."""
        found = self.retransmit.refused(lambda index: self._ledger.reply(index) == subject, subject)
        if found is None:
            return
        index, data = found
        self._refusals.take_back(index, data, subject, why)
        if index in self._unwritten_entries:
            self._unwritten_entries.remove(index)
        self._events.release([index])

    def release_unconfirmed(self, wanted: bool) -> None:
        """Begins or ends the release of entries whose replies the kernel has taken. `wanted`: no entry is free.

        The PONG that would confirm them cannot be read then, since reading needs a free entry.
        """
        self._releasing = wanted
        if wanted:
            self._events.release(self.retransmit.release_oldest(last=not self._unwritten))

    def detach(self) -> None:
        """Called when the connection has ended. Keeps unconfirmed replies, with their entries, for the next one."""
        self.suspend()
        if self._connected:
            self._ended = self._loop.time()
        self._connected = False
        self._ledger.recall(self.retransmit.entries)
        self._forget_pings()

    # -- the queues -----------------------------------------------------------------------------

    def command(self, data: bytes) -> None:
        """Queues one or more operations."""
        if data:
            self._commands.append(data)
            self.schedule_flush()

    def ping(self, answered: asyncio.Future[bool] | None) -> None:
        """Sends a PING. `answered` becomes whether its PONG came before the connection ended."""
        if self._sock is not None:
            self._pings.append(answered)
            self.command(PING)
        elif answered is not None:
            answered.set_result(False)

    def answer_ping(self) -> None:
        """Answers a PING. One PONG answers all that come before it is written: a server that does not read would fill
        this process's memory otherwise.
        """
        if _PONG not in self._commands:
            self.command(_PONG)

    async def round_trip(self) -> bool:
        """Returns True when the server has read all that is queued, False when the connection ends before."""
        answered: asyncio.Future[bool] = self._loop.create_future()
        self.ping(answered)
        return await answered

    def reply(self, index: int, data: bytes, asked_at: float = 0.0) -> None:
        """Queues the reply for a ledger entry. `asked_at`: when the request came (monotonic seconds), 0 if long ago."""
        if asked_at < self._asked_before:
            self._repeated.append(data)
        self._replies.append(data)
        self._entries.append(index)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def publish(self, data: bytes, asked_at: float = 0.0) -> None:
        """Queues a reply without a ledger entry."""
        if asked_at < self._asked_before:
            self._repeated.append(data)
        self._replies.append(data)
        self.schedule_flush()

    def confirm(self) -> None:
        """Asks the server with a PING whether it has read what was sent, and repeats replies that are due."""
        if not self._connected:
            return
        now = self._loop.time()
        self._events.release(self.retransmit.release_due(now))
        self._commands += self.retransmit.due(now)
        self._asked_before = self._restart_window.asked_before(now)
        if self._mark is None:
            self._mark = self.retransmit.next_mark()
        if self._commands or self._mark is not None:
            self.schedule_flush()

    def pong(self) -> None:
        """Handles a PONG: ends a round trip, or frees the entries whose replies it confirms."""
        mark = self._pings.popleft() if self._pings else None
        if isinstance(mark, asyncio.Future):
            if not mark.done():
                mark.set_result(True)
        elif mark is not None:
            self._events.release(self.retransmit.confirmed(mark, self._loop.time()))
            if self._ledger.available < self._ledger.entries // 2:
                self.release_held()  # the other half is for requests that run or wait

    def _forget_pings(self) -> None:
        for mark in self._pings:
            if isinstance(mark, asyncio.Future) and not mark.done():
                mark.set_result(False)
        self._pings.clear()

    def release_held(self) -> None:
        """Releases the entries that are held for requesters that may not have reconnected."""
        self._events.release(self.retransmit.release_held())

    def is_flooded(self) -> bool:
        """Whether too many bytes wait to be written. It sums them at each call, so that a reply costs no count."""
        waiting = len(self._unwritten) + (sum(map(len, self._replies)) if self._replies else 0)
        self.flooded = waiting > _MOST_UNSENT
        return self.flooded

    @property
    def unsent(self) -> bool:
        """Whether replies wait for the kernel or for a connection."""
        return bool(self._replies or self._unwritten)

    async def drain(self) -> None:
        """Waits until the kernel has taken all that is queued, or the connection has ended."""
        self.flush()
        while self._unwritten:
            self._drained.clear()
            await self._drained.wait()

    # -- writing --------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        """Flushes at the end of this turn of the loop, so that its replies leave in one call."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def flush_after(self, work: Callable[[], None]) -> None:
        """Calls `work`, and writes at once what it queued: not a turn of the loop later, and before any thread runs."""
        self._flush_scheduled = True
        try:
            work()
        finally:
            self.flush(sockets.send)

    def flush(self, send: Callable[[socket.socket, bytes], int] = socket.socket.send) -> None:
        """Writes what is queued, as far as the kernel takes it."""
        self._flush_scheduled = False
        sock = self._sock
        if sock is None or self._unwritten:
            return
        data, entries, now = b"", [], self._loop.time()
        if self._connected and self._replies:
            self._sink.before_send()
            data = b"".join(self._replies)
            if self._may_be_too_large and len(data) > self._refusals.limit:
                data = self._refusals.fit(data, self._entries)
            entries, retransmit = self._entries, self.retransmit
            self._replies, self._entries = [], []
            repeated = b""
            if self._repeated:
                repeated, self._repeated = b"".join(self._repeated), []
            dropped = retransmit.sent(data, entries, now, repeated)
            if dropped:
                self._events.release(dropped)
            if retransmit.unasked >= _ASK_EVERY and self._mark is None:
                self._mark = retransmit.next_mark()
        if self._commands:
            data = b"".join(self._commands) + data
            self._commands.clear()
        if self._mark is not None:  # after the replies: its PONG confirms them
            self._pings.append(self._mark)
            self._mark = None
            data += PING
        if not data:
            return
        if self.tls is not None:
            data = self.tls.encrypt(data)
        try:
            sent = send(sock, data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            if not self._events.write_failed(error):
                return
            sent = 0
        if sent == len(data):
            self._on_taken(entries, now)
        else:
            self._unwritten, self._unwritten_entries = memoryview(data)[sent:], entries
            self._loop.add_writer(self._sock or sock, self._writable)

    def _on_taken(self, entries: list[int], now: float) -> None:
        if not self._restart_window.is_open(now):
            self._ledger.sent(entries)
        if self._releasing:
            self.release_unconfirmed(True)

    def _writable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            sent = sock.send(self._unwritten)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._events.write_failed(error)
            return
        self._unwritten = self._unwritten[sent:]
        if self._unwritten:
            return
        self._loop.remove_writer(sock)
        entries, self._unwritten_entries = self._unwritten_entries, []
        self._on_taken(entries, self._loop.time())
        self._drained.set()
        self.flush()
