"""The transport under nats-py: the socket is received straight into the ledger's chunk, requests never enter nats-py.

nats-py keeps what it is good at: servers, authentication, INFO, PING, reconnecting. It sees operation lines only.
Messages become ledger entries, every one of a chunk before any of them is handed on, and replies go straight from
here to the kernel. Source of the interface: `nats.aio.transport.Transport` of nats-py 2.16.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from typing import Protocol
from urllib.parse import ParseResult

from nats.aio.transport import Transport

from ajhost.adapters.linux import sockets, tcp
from ajhost.adapters.nats.reply_writer import ReplyWriter
from ajhost.adapters.nats.tls import TlsSession
from ajhost.core.restart_window import RestartWindow
from ajhost.ledger.layout import Word
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import FrameError, Message, message_line, scan

_CLUSTER = b'"cluster":'
_SERVER_ID = re.compile(rb'"server_id":"([^"]*)"')


class Sink(Protocol):
    """Who owns the ledger and decides about requests."""

    async def opened(self, sock: socket.socket) -> None:
        """A new connection, before anything was sent on it. Pass a duplicate of it on, return when it is in good hands.

        What the server hands to a connection of which nobody else has a duplicate dies with this process.
        """

    def admit(self, index: int, data: bytes, message: Message) -> None:
        """A request, RECEIVED in the ledger. Called for a whole batch, in order. Its frame stays until
        `before_buffer_reuse`."""

    def before_buffer_reuse(self) -> None:
        """The chunk is about to be overwritten: nobody may need any more what has been admitted from there."""

    def refuse(self, reply: bytes) -> None:
        """A request for which no entry was free when its connection ended. Answer it as overloaded."""

    def server_error(self, text: str) -> None:
        """The server said `-ERR`."""


class LedgerTransport(Transport):
    """One NATS connection after another, through one ledger."""

    def __init__(self, ledger: LedgerWriter, restart_window: RestartWindow, sink: Sink) -> None:
        self._ledger, self._restart_window = ledger, restart_window
        self._words = ledger.words
        self._buffer = ReceiveBuffer(ledger)
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        self._tls: TlsSession | None = None
        self._connected = False
        self._eof = True
        self._needed = 0
        self._reading = False
        self._line: asyncio.Future[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._controls: list[bytes] = []
        self._server: bytes | None = None
        self._server_changed = self._server_absent = False
        self.out = ReplyWriter(ledger, restart_window, self._released, self._broken)
        """What leaves: replies, and the operations of nats-py."""

    # -- nats-py's side -------------------------------------------------------------------------

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Opens a connection; its socket is passed on before a byte is sent."""
        del buffer_size
        try:
            async with asyncio.timeout(connect_timeout):
                sock = await self._open(uri.hostname or "localhost", uri.port or 4222)
        except OSError:
            self._server_absent = True
            raise
        self._words[Word.SOCKET] = 0
        self._buffer.reset()
        self._words[Word.SOCKET] = sock.fileno()
        self._words[Word.TLS] = 0
        self._tls = None
        self._needed = 0
        self._controls.clear()
        self._connected = self._eof = False
        self._sock = sock
        self.out.attach(sock)
        await self._sink.opened(sock)
        self._read_on()

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Encrypts the connection; opens it first when a whole URI is given (`tls://`)."""
        if not isinstance(uri, str):
            if self._sock is None or self._eof:
                await self.connect(uri, buffer_size, connect_timeout)
            uri = uri.hostname or "localhost"
        sock = self._sock
        if sock is None:
            raise ConnectionError("the connection is gone")
        self._read_off()
        tls = TlsSession(ssl_context, uri)
        async with asyncio.timeout(connect_timeout):
            await tls.handshake(self._loop, sock)
        self._tls = self.out.tls = tls
        self._words[Word.TLS] = 1
        self._read_on()
        self._loop.call_soon(self._receive)  # what arrived with the end of the handshake

    async def _open(self, host: str, port: int) -> socket.socket:
        problem: OSError = ConnectionError(f"{host} has no address")
        for family, kind, proto, _, address in await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, proto)
            sock.setblocking(False)
            try:
                await self._loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                problem = error
            except BaseException:
                sock.close()
                raise
            else:
                tcp.tune(sock)
                return sock
        raise problem

    def write(self, payload: bytes) -> None:
        """Queues an operation of nats-py."""
        self.out.command(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Queues operations of nats-py."""
        for command in payload:
            self.out.command(command)

    async def drain(self) -> None:
        """Waits until the kernel took what was queued, or the connection is gone."""
        await self.out.drain()

    async def readline(self) -> bytes:
        """A line of the handshake. The PONG that ends it opens the way for replies."""
        while True:
            if self._eof:
                raise ConnectionResetError("the server closed the connection")
            data = self._buffer.unconsumed()
            end = data.find(b"\r\n")
            if end >= 0:
                self._buffer.consume(end + 2)
                line = data[: end + 2]
                if line.startswith(b"INFO"):
                    self._on_info(line)
                elif line.startswith(b"PONG"):
                    self._on_connected()
                return line
            self._line = self._loop.create_future()
            await self._line

    async def read(self, buffer_size: int) -> bytes:
        """Operation lines for nats-py's parser; messages are not among them. Empty at the end of the connection."""
        del buffer_size
        while not self._controls and not self._eof:
            self._wake = self._loop.create_future()
            await self._wake
        lines = b"".join(self._controls)
        self._controls.clear()
        return lines

    async def wait_closed(self) -> None:
        """Nothing to wait for: `close` is immediate."""

    def close(self) -> None:
        """Closes this process's descriptor; a duplicate elsewhere keeps the connection."""
        self._on_closed(None)
        self._words[Word.SOCKET] = 0  # first: the number may be another's at once
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def at_eof(self) -> bool:
        """Whether the connection has ended."""
        return self._eof

    def __bool__(self) -> bool:
        return True  # nats-py replaces a transport that is false before `connect`

    # -- in -------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        if not self._reading and self._sock is not None and not self._eof:
            self._reading = True
            self._loop.add_reader(self._sock, self._receive)

    def _read_off(self) -> None:
        if self._reading and self._sock is not None:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _receive(self) -> bool:
        """Receives once and deals with it; whether there may be more."""
        sock = self._sock
        if sock is None or self._eof:
            return False
        if self._fenced:
            self._on_closed(None)
            return False
        self._sink.before_buffer_reuse()
        try:
            if self._tls is None:
                count = sockets.receive(sock, self._buffer.free_space(self._needed))
            else:
                count = self._tls.receive(sock, self._buffer.free_space(self._needed))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._on_closed(error)
            return False
        if not count:
            self._on_closed(None)
            return False
        self._buffer.commit(count)
        if not self._connected:
            if self._line is not None and not self._line.done():
                self._line.set_result(None)
            return False
        if self._buffer.received - self._buffer.done >= self._needed:
            self._parse()
        if self._tls is not None and self._tls.pending:
            self._loop.call_soon(self._receive)
        return True

    def _broken(self, error: OSError) -> None:
        """A write failed: the server is gone. What it had sent before is in the kernel still, and in nobody's else."""
        while self._connected and not self._eof:
            if not self._reading:
                self._refuse_rest()  # no entry is free, nor will be: their replies cannot leave
            if not self._receive():
                break
        self._on_closed(error)

    def _parse(self) -> None:
        """Ledger for every whole frame, one store that moves `PARSED_POS` on, and only then admission."""
        ledger, buffer = self._ledger, self._buffer
        data = buffer.unconsumed()
        available = ledger.available
        try:
            found = scan(data, 0, available)
        except FrameError as error:
            self._sink.server_error(str(error))
            self._on_closed(error)
            return
        messages, place, now = found.messages, buffer.place(), time.monotonic_ns()
        receive = ledger.receive
        batch = [
            (receive(place + m[0], m[3] - m[0], now), m) for m in messages if m[5]
        ]  # nobody waits for a message without a reply subject
        self._needed = found.needed
        buffer.consume(found.end)
        if self._fenced:
            # with all that was not in the ledger yet
            for index, _ in batch:
                ledger.release(index)
            self._on_closed(None)
            return
        if found.controls:
            self._control(found.controls)
        admit = self._sink.admit
        for index, message in batch:
            admit(index, data, message)
        self.out.schedule_flush()  # after the first steps of what was started, in the same turn
        if len(messages) >= available and found.end < len(data):
            self._read_off()  # no entry is free: the rest waits in the chunk until replies have left
            self.out.release_unconfirmed(True)
        elif found.needed > buffer.size - READ_SIZE:
            self._oversize(data[found.end :])

    def _oversize(self, head: bytes) -> None:
        """A frame that no chunk holds (the server's max_payload grew): refused by its first line, and passed over."""
        line = message_line(head)
        if line is None:
            return
        subject, reply, size = line
        self._needed = 0
        index = self._ledger.receive(self._buffer.place(), len(head), time.monotonic_ns()) if reply else None
        # beyond what is received: whoever inherits us passes over the rest as well
        self._buffer.consume(size)
        if index is not None:
            self._sink.admit(index, head, (0, 0, 0, size, subject, reply))

    def _control(self, lines: list[bytes]) -> None:
        for line in lines:
            if line == b"PONG\r\n" and self.out.pong():
                continue
            if line.startswith(b"-ERR"):
                # nats-py would close for good; the server closes what it must, and then we connect again
                self._sink.server_error(line[4:].decode("utf-8", "replace").strip(" '\r\n"))
                continue
            self._controls.append(line)
        if self._controls and self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _on_closed(self, error: Exception | None) -> None:
        if self._eof:
            return
        paused = self._connected and not self._reading
        self._eof = True
        self._connected = False
        self._read_off()
        if paused:
            self._refuse_rest()
        self.out.detach()
        for waiter in (self._line, self._wake):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if error is not None:
            self._sink.server_error(f"connection lost: {error}")

    @property
    def _fenced(self) -> bool:
        """Whether our connection was taken over while we were stopped: the chunk is not ours any more."""
        return self._words[Word.FENCED_EPOCH] == self._words[Word.EPOCH]

    def _refuse_rest(self) -> None:
        """Whole frames that waited for a free entry do not outlive their connection's chunk: answer them."""
        if self._fenced:
            return
        try:
            found = scan(self._buffer.unconsumed())
        except FrameError:
            return  # it is not the first time that this is found out: the connection is ending for it
        for message in found.messages:
            if message[5]:
                self._sink.refuse(message[5])
        self._buffer.consume(found.end)

    # -- entries ------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Goes on with what waited for a free ledger entry; call it when entries were released elsewhere."""
        if self._connected and not self._reading and self._ledger.available:
            self.out.release_unconfirmed(False)
            self._read_on()
            self._loop.call_soon(self._parse_rest)

    def _released(self, entries: list[int]) -> None:
        self._ledger.release_all(entries)
        if entries and not self._reading:
            self.resume()

    def _parse_rest(self) -> None:
        if self._connected and not self._eof and self._buffer.received > self._buffer.done:
            self._parse()

    def _on_info(self, line: bytes) -> None:
        """Another server than before, or the same one started anew: requesters may not be back on it yet."""
        known, found = self._server, _SERVER_ID.search(line)
        self._server = found[1] if found is not None else b""
        now = self._loop.time()
        replaced = self._restart_window.server_seen(self._server, now, clustered=_CLUSTER in line)
        self._server_changed = self._server_absent or replaced or known not in (None, self._server)
        self._server_absent = False

    def _on_connected(self) -> None:
        self._connected = True
        self.out.reconnected(self._server_changed)
        self._loop.call_soon(self._parse_rest)
