"""Receives the bytes of one NATS connection after another into a ledger's receive buffer, and parses them there. Stops
reading while no ledger entry is free or too many replies wait, and replaces a socket that a handler has closed.

All messages of one read become ledger entries before any is handed on. Replies go straight to the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time

from ajhost.adapters.linux import sockets, tcp
from ajhost.adapters.linux.descriptors import SocketGuard
from ajhost.adapters.nats import interfaces
from ajhost.adapters.nats.interfaces import Driver, InBuffer, ServerRefused, Sink
from ajhost.adapters.nats.reply_writer import ReplyWriter
from ajhost.adapters.nats.tls import TlsSession
from ajhost.core.connection_table import Lost
from ajhost.core.server_errors import error_text
from ajhost.core.server_restart import KnownServer, RestartWindow
from ajhost.core.timings import SOCKET_TAKEOVER_LIMIT
from ajhost.ledger.connection_status import Reason
from ajhost.ledger.layout import Word
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import LONGEST_LINE, FrameError, message_line, scan
from ajhost.protocol.server_info import LONGEST_FRAME, LONGEST_INFO, InfoError, ServerInfo, read_info

_log = logging.getLogger("ajhost.nats")
# read for each batch: as an attribute of the enum it would cost as much as a store
_FENCED_EPOCH = int(Word.FENCED_EPOCH)


class LedgerTransport:
    def __init__(self, ledger: LedgerWriter, restart_window: RestartWindow, sink: Sink, driver: Driver) -> None:
        self.ledger = ledger
        self._words = ledger.words
        self._buffer = ReceiveBuffer(ledger)
        self.in_buffer: set[InBuffer] = set()
        """Admitted requests in the receive buffer that have not started. The code that starts one removes it."""
        self._sink, self._driver = sink, driver
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._guard: SocketGuard | None = None
        self.epoch = self._words[Word.EPOCH]
        """The number of the present connection, or of the last one."""
        self._tls: TlsSession | None = None
        self.connected = False
        """Whether the server has accepted the log-in."""
        self._closed = True
        self._frame_needs = self._server_limit = 0
        self._longest_frame = LONGEST_FRAME
        self.reading = False
        """Whether this process would receive bytes that arrive: not while no ledger entry is free."""
        self._arrival = asyncio.Event()
        self.server = KnownServer(restart_window)
        self._received_before, self._socket_lost_at = -1, 0.0
        self.out = ReplyWriter(ledger, restart_window, self, sink)
        """The writer of replies and operations."""

    @property
    def progress(self) -> int:
        """Grows with what the server sends (`ReceiveBuffer.progress`)."""
        return self._buffer.progress(self._frame_needs)

    # -- a connection's beginning and end -------------------------------------------------------

    async def open(self, sock: socket.socket) -> None:
        """Takes a connected socket. The sink gets it before a byte is sent."""
        tcp.tune(sock)
        self._words[Word.SOCKET] = 0
        self._buffer.reset()
        # in private memory as well: a stray write into the ledger does not change which connection has ended
        self.epoch = self._words[Word.EPOCH]
        self._words[Word.SOCKET] = sock.fileno()
        self._words[Word.TLS] = 0
        self._tls, self._frame_needs = None, 0
        self.connected = self._closed = False
        self._received_before, self._socket_lost_at = -1, 0.0
        self._sock = sock
        try:
            self._guard = SocketGuard(sock)
            self.out.attach(sock)
            await self._sink.opened(sock)
        except BaseException:
            self.close()
            raise
        self._start_reading()

    async def seal(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Encrypts the connection. :raises ConnectionError: when the server hangs up. For the rest see `TlsSession`."""
        sock = self._sock
        if sock is None or self._closed:
            raise ConnectionResetError("the server closed the connection")
        self._stop_reading()
        tls = TlsSession(context, server_hostname)
        await tls.handshake(self._loop, sock, self._buffer.received - self._buffer.done)
        self._tls = self.out.tls = tls
        self._words[Word.TLS] = 1
        self._start_reading()
        self._loop.call_soon(self._receive)  # bytes may have arrived with the end of the handshake

    async def read_info(self) -> ServerInfo:
        """Reads the server's first line.

        :raises InfoError: when it is no INFO. :raises ConnectionError: when the server hangs up.
        """
        line = await self._next_line(LONGEST_INFO)
        if line.startswith(b"-ERR"):
            raise ServerRefused(error_text(line))
        info = read_info(line)
        self.server.greeted_by(info, self._loop.time())
        self._apply_limits(info, info.max_payload)
        return info

    async def read_answer(self) -> bytes:
        """Reads the line that answers a log-in: PONG, after which replies may leave, or -ERR."""
        while True:
            line = await self._next_line(LONGEST_LINE)
            if line.startswith(b"PONG"):
                self.connected = True
                self.out.reconnected(self.server.changed)
                self._loop.call_soon(self._parse_rest)
                return line
            if line.startswith(b"-ERR"):
                return line
            self._obey([line])

    async def _next_line(self, longest: int) -> bytes:
        """Returns the next line during the log-in, with its CRLF.

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
            if self._closed:
                raise ConnectionResetError("the server closed the connection")
            self._arrival.clear()
            await self._arrival.wait()

    def close(self) -> None:
        """Closes the socket, after shutdown(SHUT_WR): other processes' duplicates would keep the connection open.

        No shutdown if it was taken over, or its descriptor is lost: the supervisor reads such a connection to its end.
        """
        self._on_closed(None)
        guard, sock, self._guard, self._sock = self._guard, self._sock, None, None
        if guard is not None and guard.is_ours and not self._taken_over:
            tcp.end_sending(guard.sock)
        self._words[Word.SOCKET] = 0  # before the close: another file may get the number at once
        if guard is not None:
            guard.close()
        elif sock is not None:
            sock.close()

    # -- sockets that handlers have closed ----------------------------------------------------------

    def repair_socket(self) -> None:
        """Repairs a socket that user code has closed, replaced, or removed from the loop."""
        if self._guard is None or self._closed:
            return
        if self._socket_lost_at:
            if self._taken_over:
                self._on_closed(interfaces.TAKEN_OVER)
            elif self._loop.time() - self._socket_lost_at > SOCKET_TAKEOVER_LIMIT:
                self._on_closed(Lost(Reason.SOCKET, "somebody in this process closed the connection's socket"))
            return
        self._change_descriptor(self._guard)
        sock = self._sock if self.reading and self._buffer.received == self._received_before else None
        if sock is not None and sockets.is_readable(sock):
            # bytes, or the end, have waited since the last check: the loop does not report them any more
            self._loop.remove_reader(sock)
            self._loop.add_reader(sock, self._receive)
            self._receive()
        self._received_before = self._buffer.received

    def _change_descriptor(self, guard: SocketGuard) -> bool:
        """Continues under another number if the socket's is closed, or another file's. Returns whether it did."""
        if guard.is_ours:
            return False
        reading, number = self.reading, guard.duplicate()
        self._stop_reading()
        if number is None:
            # the supervisor takes the connection over by its duplicate; a new connection would lose unread requests
            self._socket_lost_at, self._words[Word.SOCKET_LOST] = self._loop.time(), self.epoch
            self.out.suspend()
            _log.error("somebody in this process closed the socket of the NATS connection")
            return False
        _log.error("somebody in this process closed the socket of the NATS connection: a duplicate replaces it")
        self._sock = guard.replace(number)
        self._words[Word.SOCKET] = number
        self.out.replace(self._sock)
        if reading:
            self._start_reading()
        return True

    # -- receiving ------------------------------------------------------------------------------

    def _start_reading(self) -> None:
        if not (self.reading or self._closed or self._socket_lost_at or self._sock is None):
            self.reading, self._words[Word.READING_PAUSED] = True, 0
            self._loop.add_reader(self._sock, self._receive)

    def _stop_reading(self, paused: int = 0) -> None:
        if self.reading and self._sock is not None:
            self.reading, self._words[Word.READING_PAUSED] = False, paused
            self._loop.remove_reader(self._sock)

    def _receive(self) -> bool:
        """Receives once and parses it. Returns whether there may be more."""
        sock, buffer = self._sock, self._buffer
        if sock is None or self._closed:
            return False
        if self._taken_over:
            self._on_closed(interfaces.TAKEN_OVER)
            return False
        if self.in_buffer:
            self._before_buffer_reuse()
        try:
            space = buffer.free_space(self._frame_needs)
            if not space and self._frame_needs:
                self._oversize(buffer.unconsumed())  # there is no memory for this frame
                self._before_buffer_reuse()
                space = buffer.free_space(0)
            if not space:
                raise FrameError("a line that is longer than any")
            count = sockets.receive(sock, space) if self._tls is None else self._tls.receive(sock, space)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if self._guard is None or self._guard.is_ours:
                self._on_closed(interfaces.broken(error))
            else:
                self._change_descriptor(self._guard)
            return False
        except FrameError as error:
            self._on_closed(Lost(Reason.PROTOCOL, str(error)))
            return False
        if not count:
            self._on_closed(Lost(Reason.ENDED, "the server closed the connection"))
            return False
        buffer.commit(count)
        if not self.connected:
            self._arrival.set()
            return False
        if buffer.received - buffer.done >= self._frame_needs:
            self._parse()
        if self._tls is not None and self._tls.pending:
            self._loop.call_soon(self._receive)
        return True

    def _before_buffer_reuse(self) -> None:
        for request in tuple(self.in_buffer):
            request.count_as_started()

    def write_failed(self, error: OSError) -> bool:
        """`WriterEvents`. Receives first what the kernel still has: the server sent it before the connection ended."""
        if self._guard is not None and not self._guard.is_ours:
            return self._change_descriptor(self._guard)
        while self.connected:
            if not self.reading:
                self._refuse_unparsed()  # no entry is free, and none will be: replies cannot leave
            if not self._receive():
                break
        self._on_closed(interfaces.broken(error))
        return False

    def _parse(self) -> None:
        """Makes an entry for every whole frame, stores `PARSED_POS` once, and only then passes the requests on.

        Any error ends the connection, and in a worker the process; recovery then runs requests that were not passed on.
        """
        try:
            self._parse_frames()
        except (FrameError, InfoError) as error:
            self._on_closed(Lost(Reason.PROTOCOL, str(error)))
        except Exception as error:
            self._loop.call_soon(self._on_closed, Lost(Reason.CLIENT, f"{type(error).__name__}: {error}"))
            raise

    def _parse_frames(self) -> None:
        ledger, buffer = self.ledger, self._buffer
        data = buffer.unconsumed()
        available = ledger.available
        messages, controls, end, needed = scan(data, 0, available)
        requests = ledger.receive_all(buffer.place(), messages, time.monotonic_ns())
        self._frame_needs = needed
        buffer.consume(end)
        if self._taken_over:
            # the supervisor took over all that had no entry by then, these requests among them
            for index, _ in requests:
                ledger.release(index)
            self._on_closed(interfaces.TAKEN_OVER)
            return
        if controls:
            self._obey(controls)
        if requests:
            self._sink.admit(data, requests)
        if len(requests) != len(messages):
            for message in [m for m in messages if not m[5]]:
                self._sink.message_without_reply(data, message)
        self.out.schedule_flush()  # after the first steps of the started handlers, in the same turn of the loop
        if needed > self._longest_frame:
            raise FrameError(f"a frame of {needed} bytes")
        if len(messages) >= available and end < len(data):
            if len(requests) < len(messages):  # some had no reply subject and took no entry: parse the rest
                self._loop.call_soon(self._parse_rest)
                return
            self._stop_reading(paused=1)  # the rest waits in the buffer until replies have left, and entries are free
            self.out.release_unconfirmed(True)
        elif needed > buffer.size - READ_SIZE:
            self._oversize(data[end:])

    def _oversize(self, head: bytes) -> None:
        """Refuses a frame longer than the receive buffer (the server's max_payload grew), and skips its bytes."""
        line = message_line(head)
        if line is None:
            return
        subject, reply, size = line
        self._frame_needs = 0
        index = self.ledger.receive(self._buffer.place(), len(head), time.monotonic_ns()) if reply else None
        # beyond the received bytes: if this process dies, recovery skips the rest of the frame as well
        self._buffer.consume(size)
        if index is not None:
            self._sink.admit(head, [(index, (0, 0, 0, size, subject, reply))])

    def _obey(self, lines: list[bytes]) -> None:
        """Handles operation lines of the server.

        :raises InfoError: for a malformed INFO. :raises FrameError: for an operation that no server sends.
        """
        for line in lines:
            match line[:4].upper():
                case b"PONG":
                    self.out.pong()
                case b"PING":
                    self.out.answer_ping()
                case b"INFO":
                    info = read_info(line)
                    self._apply_limits(info, max(info.max_payload, self._server_limit))
                    self._driver.info_received(info)
                case b"-ERR":  # if the server then closes the connection, a new one is made
                    self._driver.error_received(error_text(line))
                case b"+OK\r":
                    pass
                case _:
                    raise FrameError(f"{line[:40]!r}, which is no operation of a server")

    def _on_closed(self, event: Lost | None) -> None:
        if self._closed:
            return
        paused = self.connected and not self.reading
        self._closed = True
        self.connected = False
        self._stop_reading()
        if paused:
            self._refuse_unparsed()
        self.out.detach()
        self._arrival.set()
        if event is not None:
            self._driver.connection_ended(self.epoch, event)

    @property
    def _taken_over(self) -> bool:
        """Whether the connection, and the receive buffer, was taken over while this process was stopped."""
        # against private memory: a stray write that made two words equal would leave the connection without a reader
        return self._words[_FENCED_EPOCH] == self.epoch

    def _refuse_unparsed(self) -> None:
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
        """Resumes reading when a ledger entry is free, or pauses it while too many replies wait. Call it often."""
        if self.out.is_flooded():
            if self.connected:
                self._stop_reading(1)
        elif self.connected and not self.reading and self.ledger.available:
            self.out.release_unconfirmed(False)
            self._start_reading()
            self._loop.call_soon(self._parse_rest)

    def release(self, entries: list[int]) -> None:
        """`WriterEvents`. Frees entries, and resumes reading if that waited for one."""
        self.ledger.release_all(entries)
        if entries and not self.reading:
            self.pause_or_resume()

    def _parse_rest(self) -> None:
        if self.connected and self._buffer.received > self._buffer.done:
            self._parse()

    def _apply_limits(self, info: ServerInfo, of_all: int) -> None:
        """Sets the limits in INFO. `of_all`: that for any sender, since INFO after the log-in has this user's own."""
        self._longest_frame, self._server_limit = info.longest_frame, of_all
        self.out.set_limits(info.max_payload, of_all)
        self._sink.set_max_payload(of_all)
