"""The bytes of one NATS connection after another: received straight into a ledger's receive buffer, parsed there.

Messages become ledger entries: all those of one read before any is handed on. Replies go straight to the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time

from ajhost.adapters.linux import sockets, tcp
from ajhost.adapters.nats import interfaces
from ajhost.adapters.nats.interfaces import Driver, InBuffer, ServerRefused, Sink, error_text
from ajhost.adapters.nats.line_reader import LineReader
from ajhost.adapters.nats.reply_writer import ReplyWriter
from ajhost.adapters.nats.server_operations import obey
from ajhost.adapters.nats.socket_guard import SocketGuard
from ajhost.adapters.nats.tls import TlsSession
from ajhost.core.connection_table import Lost
from ajhost.core.server_restart import KnownServer, RestartWindow
from ajhost.core.timings import SOCKET_TAKEOVER_LIMIT
from ajhost.ledger.connection_status import Reason
from ajhost.ledger.layout import Word
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import LONGEST_LINE, FrameError, message_line, scan
from ajhost.protocol.server_info import LONGEST_FRAME, LONGEST_INFO, InfoError, ServerInfo, read_info

_log = logging.getLogger("ajhost.nats")
# a constant of its own: to read an attribute of a class costs as much as a store, and this is for each batch
_FENCED_EPOCH = int(Word.FENCED_EPOCH)


class LedgerTransport:
    """One NATS connection after another, through one ledger."""

    def __init__(
        self, ledger: LedgerWriter, restart_window: RestartWindow, sink: Sink, driver: Driver
    ) -> None:
        self.ledger = ledger
        self._words = ledger.words
        self._buffer = ReceiveBuffer(ledger)
        self.in_buffer: set[InBuffer] = set()
        """What was admitted and has not begun, and lies in the receive buffer. Whoever begins it takes it out."""
        self._sink, self._driver = sink, driver
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._guard: SocketGuard | None = None
        self._checked = -1
        self.epoch = self._words[Word.EPOCH]
        """The number of the present connection, or of the last one."""
        self._tls: TlsSession | None = None
        self._connected = False
        self._eof = True
        self._needed = self._of_all = 0
        self._longest = LONGEST_FRAME
        self._reading = False
        self._lines = LineReader(self._buffer)
        self.server = KnownServer(restart_window)
        self._deaf_at = 0.0
        self.out = ReplyWriter(ledger, restart_window, self, sink)
        """The writer of replies and operations."""

    @property
    def progress(self) -> int:
        """Grows while the server says something."""
        return self._buffer.progress(self._needed)

    @property
    def reading(self) -> bool:
        """Whether this process would receive bytes that arrive: not while no ledger entry is free."""
        return self._reading

    @property
    def connected(self) -> bool:
        """Whether the server has accepted the log-in."""
        return self._connected

    # -- a connection's beginning and end -------------------------------------------------------

    async def open(self, sock: socket.socket) -> None:
        """Takes a connected socket. The sink gets it before a byte is sent."""
        tcp.tune(sock)
        self._words[Word.SOCKET] = 0
        self._buffer.reset()
        # in our own memory as well: by it the end of a connection is known, also after a stray write
        self.epoch = self._words[Word.EPOCH]
        self._words[Word.SOCKET] = sock.fileno()
        self._words[Word.TLS] = 0
        self._tls = None
        self._needed = 0
        self._connected = self._eof = False
        self._deaf_at = 0.0
        self._lines.begin()
        self._sock = sock
        self._guard = SocketGuard(sock)
        self._checked = -1
        self.out.attach(sock)
        await self._sink.opened(sock)
        self._read_on()

    async def seal(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Encrypts the connection. :raises ConnectionError: when the server hangs up. For the rest see `TlsSession`."""
        sock = self._sock
        if sock is None or self._eof:
            raise ConnectionResetError("the server closed the connection")
        self._read_off()
        tls = TlsSession(context, server_hostname)
        await tls.handshake(self._loop, sock, self._buffer.received - self._buffer.done)
        self._tls = self.out.tls = tls
        self._words[Word.TLS] = 1
        self._read_on()
        self._loop.call_soon(self._receive)  # what arrived with the end of the handshake

    async def read_info(self) -> ServerInfo:
        """The server's first line.

        :raises InfoError: when it is no INFO. :raises ConnectionError: when the server hangs up.
        """
        line = await self._lines.next(LONGEST_INFO)
        if line.startswith(b"-ERR"):
            raise ServerRefused(error_text(line))
        info = read_info(line)
        self.server.met(info, self._loop.time())
        self._limit(info, info.max_payload)
        return info

    async def read_answer(self) -> bytes:
        """Reads the line that answers a log-in: PONG, after which replies may leave, or -ERR."""
        while True:
            line = await self._lines.next(LONGEST_LINE)
            if line.startswith(b"PONG"):
                self._accepted()
                return line
            if line.startswith(b"-ERR"):
                return line
            self._control([line])

    def close(self) -> None:
        """Ends the connection for whoever holds a duplicate of it: the server must hand nothing to it any more.

        Not one that was taken over, nor one whose descriptor is lost: the supervisor reads these to their ends.
        """
        self._lose(None)
        if (
            self._sock is not None
            and self._guard is not None
            and self._guard.is_ours
            and not self._taken_over
        ):
            tcp.end_sending(self._sock)
        self._words[Word.SOCKET] = 0  # first: the number may stand for another file at once
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()
        elif self._sock is not None:
            self._sock.close()
        self._sock = None

    # -- what handlers may do to us -----------------------------------------------------------------

    def check(self) -> None:
        """Mends what user code did to the socket: closed it, replaced it, or removed it from the loop."""
        if self._guard is None or self._eof:
            return
        if self._deaf_at:
            if self._taken_over:
                self._lose(interfaces.TAKEN_OVER)
            elif self._loop.time() - self._deaf_at > SOCKET_TAKEOVER_LIMIT:
                self._lose(Lost(Reason.SOCKET, "somebody in this process closed the connection's socket"))
            return
        self._mend(self._guard)
        sock = self._sock if self._reading and self._buffer.received == self._checked else None
        if sock is not None and sockets.is_readable(sock):
            # bytes, or the end, have waited since the last check: the loop does not report them any more
            self._loop.remove_reader(sock)
            self._loop.add_reader(sock, self._receive)
            self._receive()
        self._checked = self._buffer.received

    def _mend(self, guard: SocketGuard) -> bool:
        """Continues under another number if the socket's is closed, or another file's. Returns whether it did."""
        if guard.is_ours:
            return False
        reading, number = self._reading, guard.duplicate()
        self._read_off()
        if number is None:
            # the supervisor takes the connection over by its duplicate; a new one would lose what waits in the kernel
            self._deaf_at = self._loop.time()
            self.out.suspend()
            _log.error("somebody in this process closed the socket of the NATS connection")
            return False
        _log.error(
            "somebody in this process closed the socket of the NATS connection: a duplicate replaces it"
        )
        self._sock = guard.replace(number)
        self._words[Word.SOCKET] = number
        self.out.replace(self._sock)
        if reading:
            self._read_on()
        return True

    # -- in -------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        if not (self._reading or self._eof or self._deaf_at or self._sock is None):
            self._reading, self._words[Word.READING_PAUSED] = True, 0
            self._loop.add_reader(self._sock, self._receive)

    def _read_off(self, paused: int = 0) -> None:
        if self._reading and self._sock is not None:
            self._reading, self._words[Word.READING_PAUSED] = False, paused
            self._loop.remove_reader(self._sock)

    def _receive(self) -> bool:
        """Receives once and parses it. Returns whether there may be more."""
        sock, buffer = self._sock, self._buffer
        if sock is None or self._eof:
            return False
        if self._taken_over:
            self._lose(interfaces.TAKEN_OVER)
            return False
        if self.in_buffer:
            self._before_buffer_reuse()
        try:
            space = buffer.free_space(self._needed)
            if not space and self._needed:
                self._oversize(buffer.unconsumed())  # there is no memory for this frame
                self._before_buffer_reuse()
                space = buffer.free_space(0)
            if not space:
                raise FrameError("a line that is longer than any")
            count = sockets.receive(sock, space) if self._tls is None else self._tls.receive(sock, space)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._failed(error)
            return False
        except FrameError as error:
            self._lose(Lost(Reason.PROTOCOL, str(error)))
            return False
        if not count:
            self._lose(interfaces.ENDED)
            return False
        buffer.commit(count)
        if not self._connected:
            self._lines.wake()
            return False
        if buffer.received - buffer.done >= self._needed:
            self._parse()
        if self._tls is not None and self._tls.pending:
            self._loop.call_soon(self._receive)
        return True

    def _before_buffer_reuse(self) -> None:
        for request in tuple(self.in_buffer):
            request.count_as_started()

    def broken(self, error: OSError) -> bool:
        """A write failed. Returns whether it is to be tried again; if not, the server is gone.

        What the server had sent before is still in the kernel, and is received first.
        """
        if self._guard is not None and not self._guard.is_ours:
            return self._mend(self._guard)
        while self._connected and not self._eof:
            if not self._reading:
                self._refuse_rest()  # no entry is free, nor will be: their replies cannot leave
            if not self._receive():
                break
        self._lose(interfaces.broken(error))
        return False

    def _failed(self, error: OSError) -> None:
        """A read failed."""
        if self._guard is not None and not self._guard.is_ours:
            self._mend(self._guard)
        else:
            self._lose(interfaces.broken(error))

    def _parse(self) -> None:
        """Makes an entry for every whole frame, stores `PARSED_POS` once, and only then hands the requests on.

        Any error ends the connection, and in a worker the process; recovery then runs what was not handed on.
        """
        try:
            self._parse_frames()
        except (FrameError, InfoError) as error:
            self._lose(Lost(Reason.PROTOCOL, str(error)))
        except Exception as error:
            self._loop.call_soon(self._lose, Lost(Reason.CLIENT, f"{type(error).__name__}: {error}"))
            raise

    def _parse_frames(self) -> None:
        ledger, buffer = self.ledger, self._buffer
        data = buffer.unconsumed()
        available = ledger.available
        messages, controls, end, needed = scan(data, 0, available)
        requests = ledger.receive_all(buffer.place(), messages, time.monotonic_ns())
        self._needed = needed
        buffer.consume(end)
        if self._taken_over:
            # with all that was not in an entry yet
            for index, _ in requests:
                ledger.release(index)
            self._lose(interfaces.TAKEN_OVER)
            return
        if controls:
            self._control(controls)
        if requests:
            self._sink.admit(data, requests)
        if len(requests) != len(messages):
            for message in [m for m in messages if not m[5]]:
                self._sink.unasked(data, message)
        self.out.schedule_flush()  # after the first steps of what was started, in the same turn
        if needed > self._longest:
            raise FrameError(f"a frame of {needed} bytes")
        if len(messages) >= available and end < len(data):
            if len(requests) < len(messages):  # what has no reply subject took no entry: go on with the rest
                self._loop.call_soon(self._parse_rest)
                return
            self._read_off(paused=1)  # no entry is free: the rest waits in the buffer until replies have left
            self.out.release_unconfirmed(True)
        elif needed > buffer.size - READ_SIZE:
            self._oversize(data[end:])

    def _oversize(self, head: bytes) -> None:
        """Refuses a frame longer than the receive buffer (the server's max_payload grew), and passes it over."""
        line = message_line(head)
        if line is None:
            return
        subject, reply, size = line
        self._needed = 0
        index = self.ledger.receive(self._buffer.place(), len(head), time.monotonic_ns()) if reply else None
        # beyond what is received: if this process dies, recovery passes over the rest as well
        self._buffer.consume(size)
        if index is not None:
            self._sink.admit(head, [(index, (0, 0, 0, size, subject, reply))])

    def _control(self, lines: list[bytes]) -> None:
        for info in obey(lines, self.out, self._driver):
            self._limit(info, max(info.max_payload, self._of_all))
            self._driver.told(info)

    def _lose(self, event: Lost | None) -> None:
        if self._eof:
            return
        paused = self._connected and not self._reading
        self._eof = True
        self._connected = False
        self._read_off()
        if paused:
            self._refuse_rest()
        self.out.detach()
        self._lines.end()
        if event is not None:
            self._driver.ended(self.epoch, event)

    @property
    def _taken_over(self) -> bool:
        """Whether the connection, and the receive buffer, was taken over while this process was stopped."""
        # by our own memory: after a stray write over both words nobody would read the connection on
        return self._words[_FENCED_EPOCH] == self.epoch

    def _refuse_rest(self) -> None:
        """Refuses whole frames that waited for a free entry: the next connection overwrites the receive buffer."""
        if self._taken_over:
            return
        try:
            found = scan(self._buffer.unconsumed())
        except FrameError:
            return  # `_parse` has reported it already, and is closing the connection
        for message in found.messages:
            if message[5]:
                self._sink.refuse(message[5])
        self._buffer.consume(found.end)

    # -- entries ------------------------------------------------------------------------------------

    def pause_or_resume(self) -> None:
        """Goes on with what waited for a free ledger entry, or stops while too many replies wait. Call it often."""
        if self.out.is_flooded():
            if self._connected:
                self._read_off(1)
        elif self._connected and not self._reading and self.ledger.available:
            self.out.release_unconfirmed(False)
            self._read_on()
            self._loop.call_soon(self._parse_rest)

    def released(self, entries: list[int]) -> None:
        """The server has the replies of these entries."""
        self.ledger.release_all(entries)
        if entries and not self._reading:
            self.pause_or_resume()

    def _parse_rest(self) -> None:
        if self._connected and not self._eof and self._buffer.received > self._buffer.done:
            self._parse()

    def _limit(self, info: ServerInfo, of_all: int) -> None:
        """`of_all`: what the server takes from anybody. After the log-in INFO has the limit of this user."""
        self._longest, self._of_all = info.longest_frame, of_all
        self.out.limited(info.max_payload, of_all)
        self._sink.limited(of_all)

    def _accepted(self) -> None:
        self._connected = True
        self.out.reconnected(self.server.changed)
        self._loop.call_soon(self._parse_rest)
