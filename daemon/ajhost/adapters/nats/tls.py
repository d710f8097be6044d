"""TLS with a server: the client's context, the session, why a handshake failed, and the certificate authorities that an
interpreter trusts. `credentials.py` decides whether TLS is wanted, `connect_and_log_in.py` when it begins.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ajhost.protocol.frames import FrameError
from ajhost.settings.sections import TlsSettings

_READ_SIZE = 1 << 16
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")
"""Names in a directory of authorities, as OpenSSL looks for them (openssl-rehash(1))."""


def tls_context(tls: TlsSettings | None) -> ssl.SSLContext:
    """Makes the client's TLS context.

    :raises OSError: when a file cannot be read or is no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=None if tls is None else tls.ca)
    if tls is not None and tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def failure_text(error: Exception, ca: Path | None) -> str:
    """Says why a handshake failed, for operators. `ca`: the configured authorities, None for the interpreter's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        trust = _stores() if ca is None else f"nats.tls.ca, {ca}"
        return f"certificate refused: {error.verify_message}; trusted are {trust}"
    reason = getattr(error, "reason", None)
    return f"TLS: {str(reason or error).replace('_', ' ').lower()}"


class TlsSession:
    """An encrypted connection over a non-blocking socket, decrypted through memory straight into the receive buffer.

    The kernel holds ciphertext, so no other process can read a dead worker's socket.
    """

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
        self._tls.write(data)
        return self._out.read()


@dataclass(frozen=True, slots=True)
class Trust:
    """The authorities that an interpreter trusts if the settings name none: it may bring its own.

    `where`: its path and their files in words. `digest`: equal for the same authorities. The template reports its own.
    """

    where: str
    digest: str

    def difference(self, other: Trust) -> str:
        """Returns the warning for workers whose trust is `other`; empty when both trust the same authorities."""
        if self.digest == other.digest:
            return ""
        return (
            f"the handlers' interpreter trusts others than the host's: {other.where}; the host has {self.where}. "
            "Workers may refuse a certificate that the host accepts: name the authority with nats.tls.ca"
        )


def _stores() -> str:
    paths = ssl.get_default_verify_paths()
    found = [path for path in (paths.cafile, paths.capath) if path]
    where = " and ".join(found) or f"nobody: neither {paths.openssl_cafile} nor {paths.openssl_capath} is there"
    return f"the authorities of {sys.executable}: {where}"


def own_trust() -> Trust:
    """Returns the authorities that this process trusts, as text and as a digest."""
    digests = sorted({hashlib.sha256(certificate).digest() for certificate in _certificates()})
    return Trust(f"{_stores()} ({len(digests)})", hashlib.sha256(b"".join(digests)).hexdigest())


def _certificates() -> Iterator[bytes]:
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    with contextlib.suppress(OSError):
        if paths.capath:
            files += [file for file in Path(paths.capath).iterdir() if _HASHED.match(file.name)]
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            for found in _CERTIFICATE.finditer(file.read_bytes()):
                yield base64.b64decode(found[1])
