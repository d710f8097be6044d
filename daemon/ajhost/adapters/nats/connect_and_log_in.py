"""The steps of an attempt to connect to one server: its name looked up, a socket, INFO, TLS, the log-in with nats-py.
Refuses a server without the TLS that is wanted. Says why an attempt failed: `[nats.tls] first`, an expired JWT.

Each step returns an event for the connection's state machine.

A client object of nats-py makes one CONNECT, with our credentials and the server's nonce signed, and opens no
connection. This module sets the attributes that `connect` takes from its arguments and from a server's INFO. They are
private; tests fail when a later nats-py renames them. Source: nats-py 2.16, `Client._connect_command` and `connect`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import mmap
import ssl
import time
from collections.abc import Sequence

from nats.aio.client import Client, RawCredentials

from ajhost.adapters.nats.credentials import Credentials, CredentialsUnusable, LogInData, wants_tls
from ajhost.adapters.nats.happy_eyeballs import Unreachable, open_first
from ajhost.adapters.nats.interfaces import Driver, ServerRefused, Sink
from ajhost.adapters.nats.resolver import Resolver
from ajhost.adapters.nats.tls import failure_text
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import ConnectionFailed, Lost, Refused, Resolved, Scouted, Sealed, Unresolved
from ajhost.core.server_errors import error_text, reason_of
from ajhost.core.server_pool import Address, Server, literal
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import SCOUT_LIMIT
from ajhost.ledger.connection_status import Reason
from ajhost.ledger.layout import Geometry, Identity, create
from ajhost.ledger.receive_buffer import READ_SIZE
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import FrameError
from ajhost.protocol.server_info import LONGEST_INFO, InfoError, ServerInfo
from ajhost.settings.sections import NatsSettings

_FIRST = "[nats.tls] first"
_ENTRIES = 8


class ConnectAttempts:
    """Makes attempts with the same settings, one after another, each through `transport`."""

    def __init__(self, settings: NatsSettings, name: str, transport: LedgerTransport) -> None:
        self._name, self._transport = name, transport
        self._resolver = Resolver()
        self.reconfigure(settings)
        self._data = LogInData()
        self.info = ServerInfo()
        """The present server's INFO; after the log-in its `max_payload` is the user's own limit."""
        self.largest_request = 0
        """Bytes of the largest request that the present server may hand over."""

    @property
    def jwt_expires(self) -> float | None:
        """When the JWT that was sent last expires, in seconds since 1970; None without a JWT, or if it never does."""
        return None if self._data.creds is None else self._data.creds.expires

    def reconfigure(self, settings: NatsSettings) -> None:
        """Uses these settings from the next attempt on."""
        self._credentials = Credentials(settings)
        self._tls_wanted = wants_tls(settings)
        self._tls_first = settings.tls is not None and settings.tls.first
        self._ca = settings.tls.ca if settings.tls is not None else None

    async def connect(self, server: Server) -> Unresolved | ConnectionFailed | None:
        """Takes all steps. Returns None when the server has accepted the log-in."""
        reached = await self.reach(server)
        return await self.log_in(server) if isinstance(reached, Sealed) else reached

    async def reach(self, server: Server) -> Sealed | Unresolved | ConnectionFailed:
        """Takes all steps before the log-in."""
        found = await self.resolve(server)
        return await self.open(server, found.addresses) if isinstance(found, Resolved) else found

    async def resolve(self, server: Server) -> Resolved | Unresolved:
        """Looks the server's name up, unless it is an address."""
        if (address := literal(server.host, server.port)) is not None:
            return Resolved((address,))
        try:
            return Resolved(await self._resolver.resolve(server))
        except OSError as error:
            return Unresolved(f"{server.host}: {(error.strerror or str(error)).lower()}")

    async def open(self, server: Server, addresses: Sequence[Address]) -> Sealed | ConnectionFailed:
        """Connects, reads the server's INFO, and encrypts the transport if the settings or the server demand it."""
        try:
            self._data = await self._credentials.read(server)
            sock, address = await open_first(server, addresses)
        except CredentialsUnusable as error:
            return Refused(Reason.CREDENTIALS, str(error))
        except Unreachable as error:
            if error.event.reason is not Reason.RESOURCES:
                self._transport.server.unreachable()
            return error.event
        except OSError as error:
            return Lost(Reason.RESOURCES, (error.strerror or str(error)).lower())
        try:
            await self._transport.open(sock)
            await self._receive_info(server)
        except (ssl.SSLError, ssl.CertificateError) as error:
            text = failure_text(error, self._ca)
            if self._tls_first and getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
                text = f"{text}; {_FIRST} = false if the server begins with INFO"
            return Refused(Reason.TLS, f"{server}: {text}")
        except _NoTls as error:
            return Refused(Reason.TLS, f"{server}: {error}")
        except ServerRefused as error:
            return _refusal(server, str(error), Reason.PROTOCOL)
        except (InfoError, FrameError, OSError) as error:
            return _lost(server, error)
        return Sealed(address)

    async def _receive_info(self, server: Server) -> None:
        """Receives INFO, before the TLS handshake or after it, if there is one."""
        context = self._data.tls
        first = context if self._tls_first else None
        if first is not None:
            await self._transport.seal(first, server.certificate_name)
        try:
            self.info = await self._transport.read_info()
        except ConnectionError as error:
            if self._tls_wanted and not self._tls_first:
                raise ConnectionResetError(f"{error} without INFO; {_FIRST} = true if it begins with TLS") from error
            raise
        if not self.info.headers:
            # it ends each connection that publishes with headers (nats-server, `no_header_support`)
            raise InfoError("the server takes no headers, in which errors are told to routers")
        self.largest_request = self.info.largest_request
        if first is not None:
            return
        if self._tls_wanted:
            # whatever INFO says: an attacker who can change it could also read what is sent next
            if not self.info.offers_tls:
                raise _NoTls("the server offers no TLS, and the settings want it")
            assert context is not None
            await self._transport.seal(context, server.certificate_name)
        elif self.info.tls_required:
            await self._transport.seal(ssl.create_default_context(), server.certificate_name)

    async def log_in(self, server: Server) -> ConnectionFailed | None:
        """Logs in. Returns None when the server has accepted."""
        data, out = self._data, self._transport.out
        try:
            out.command(connect_line(self.info, data, self._name) + b"PING\r\n")
            await out.drain()
            answer = await self._transport.read_answer()
        except (InfoError, FrameError, OSError) as error:
            return _lost(server, error)
        if not answer.startswith(b"-ERR"):
            return None
        # an answer to our credentials, whatever its text
        failed = _refusal(server, error_text(answer), Reason.AUTHORIZATION)
        why = data.creds.why_not_valid(time.time()) if data.creds is not None else ""
        return dataclasses.replace(failed, text=f"{failed.text}; {why}") if why else failed


class _NoTls(Exception):
    pass


def connect_line(info: ServerInfo, data: LogInData, name: str) -> bytes:
    """Returns CONNECT, with the configured credentials.

    It has them even if INFO does not demand any: a server with `no_auth_user` never does (nats-server 2.15,
    `configureAuthorization`), and logs a client without credentials in as that user, perhaps of another account.
    """
    client = Client()
    client.options = {
        "verbose": False,
        "pedantic": False,
        "user": data.user,
        "password": data.password,
        "token": data.token,
        "name": name,
        "no_echo": False,
    }
    client._server_info = {"headers": info.headers}
    if info.nonce:  # nats-py would sign an empty nonce as well
        client._server_info["nonce"] = info.nonce
    client._auth_configured = True
    if data.creds is not None or data.seed is not None:
        client._user_credentials = RawCredentials(data.creds.text()) if data.creds is not None else None
        client._nkeys_seed_str = data.seed
        client._setup_nkeys_connect()
    return client._connect_command()


def _refusal(server: Server, text: str, unknown: Reason) -> ConnectionFailed:
    """Returns the event for a server's `-ERR` in place of a log-in. `unknown`: the reason if its text is not known."""
    reason = reason_of(text) or unknown
    kind = Refused if reason in (Reason.TLS, Reason.AUTHORIZATION, Reason.LIMIT) else Lost
    return kind(reason, f"{server}: {text}")


def _lost(server: Server, error: InfoError | FrameError | OSError) -> ConnectionFailed:
    if not isinstance(error, OSError):
        return Lost(Reason.PROTOCOL, f"{server}: {error}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Lost(Reason.RESOURCES, (error.strerror or "").lower())
    return Lost(Reason.ENDED, f"{server}: {(error.strerror or str(error)).lower()}")


async def scout(settings: NatsSettings, server: Server, name: str) -> Scouted:
    """Tries by a second connection whether a server accepts the log-in, and is not in lame-duck mode."""
    ledger = private_ledger()
    transport = LedgerTransport(ledger, RestartWindow(ledger), Sink(), Driver())
    attempts = ConnectAttempts(settings, name, transport)
    try:
        async with asyncio.timeout(SCOUT_LIMIT):
            reached = await attempts.reach(server)
            fit = isinstance(reached, Sealed) and not attempts.info.lame_duck
            return Scouted(server, fit and await attempts.log_in(server) is None)
    except TimeoutError:
        return Scouted(server, False)
    finally:
        transport.close()


def private_ledger(frame: int = LONGEST_INFO) -> LedgerWriter:
    """Makes a ledger in private memory, for frames of up to `frame` bytes: nobody takes such a connection over."""
    geometry = Geometry(_ENTRIES, (2 * frame + 4 * READ_SIZE + 4095) & ~4095, 1 << 16)
    memory = memoryview(mmap.mmap(-1, geometry.size))
    create(memory, geometry, Identity(1, 0, 0))
    return LedgerWriter(memory)
