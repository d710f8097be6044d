"""TLS: the client's context, and a session over a non-blocking socket, through memory.

Plaintext is decrypted straight into the receive buffer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from ajhost.protocol.frames import FrameError
from ajhost.settings.sections import TlsSettings

_READ_SIZE = 1 << 16


def tls_context(tls: TlsSettings | None) -> ssl.SSLContext:
    """Makes the client's TLS context.

    :raises OSError: when a file cannot be read or is no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=None if tls is None else tls.ca)
    if tls is not None and tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


class TlsSession:
    """One encrypted connection. The kernel holds ciphertext, so no other process can read a dead worker's socket."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=server_hostname)
        self.pending = False
        """Whether decrypted bytes may be left that no event of the socket will announce."""

    @property
    def certificate_expires(self) -> float | None:
        """When the server's certificate expires, in seconds since 1970; None if it does not say."""
        until = (self._tls.getpeercert() or {}).get("notAfter")
        return ssl.cert_time_to_seconds(until) if isinstance(until, str) else None

    async def handshake(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, unread: int) -> None:
        """Performs the handshake. `unread`: how many bytes were received before it.

        :raises FrameError: when there are some: they are not authenticated.
        :raises ssl.SSLError: when it fails. :raises ConnectionError: when the server hangs up.
        """
        if unread:
            raise FrameError("bytes in front of the TLS handshake")
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await loop.sock_sendall(sock, self._out.read())
                received = await loop.sock_recv(sock, _READ_SIZE)
                if not received:
                    raise ConnectionResetError("the server hung up during the TLS handshake") from None
                self._in.write(received)
            else:
                await loop.sock_sendall(sock, self._out.read())
                return

    def receive(self, sock: socket.socket, space: memoryview) -> int:
        """Decrypts into `space`. Returns the bytes written, 0 at the end of the stream.

        :raises BlockingIOError: nothing whole is there yet. :raises OSError: as the socket says.
        """
        try:
            received = sock.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            if not self.pending:
                raise
        else:
            if not received:
                return 0
            self._in.write(received)
        count = 0
        self.pending = False
        try:
            while count < len(space):
                plain = self._tls.read(len(space) - count)
                if not plain:
                    return count
                space[count : count + len(plain)] = plain
                count += len(plain)
            self.pending = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return count
        if not count:
            raise BlockingIOError
        return count

    def encrypt(self, data: bytes) -> bytes:
        """Returns the ciphertext to send for `data`."""
        self._tls.write(data)
        return self._out.read()
