"""The steps of an attempt to connect to one server. Each step returns an event for the connection's state machine."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from ajhost.adapters.nats.certificate_stores import stores
from ajhost.adapters.nats.credentials import Credentials, CredentialsUnusable, LogInData, wants_tls
from ajhost.adapters.nats.happy_eyeballs import Unreachable, open_first
from ajhost.adapters.nats.interfaces import Driver, ServerRefused, Sink
from ajhost.adapters.nats.log_in import log_in, lost, refusal
from ajhost.adapters.nats.private_ledger import private_ledger
from ajhost.adapters.nats.resolver import Resolver
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import (
    ConnectionFailed,
    Lost,
    Refused,
    Resolved,
    Scouted,
    Sealed,
    Unresolved,
)
from ajhost.core.server_pool import Address, Server, literal
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import SCOUT_LIMIT
from ajhost.ledger.connection_status import Reason
from ajhost.protocol.frames import FrameError
from ajhost.protocol.server_info import InfoError, ServerInfo
from ajhost.settings.sections import NatsSettings

_FIRST = "[nats.tls] first"
_log = logging.getLogger("ajhost.nats")


class ConnectAttempts:
    """Makes attempts with the same settings, one after another."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._name = name
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

    async def connect(self, transport: LedgerTransport, server: Server) -> Unresolved | ConnectionFailed | None:
        """Takes all steps. Returns None when the server has accepted the log-in."""
        reached = await self.reach(transport, server)
        return await self.log_in(transport, server) if isinstance(reached, Sealed) else reached

    async def reach(self, transport: LedgerTransport, server: Server) -> Sealed | Unresolved | ConnectionFailed:
        """Takes all steps before the log-in."""
        found = await self.resolve(server)
        return await self.open(transport, server, found.addresses) if isinstance(found, Resolved) else found

    async def resolve(self, server: Server) -> Resolved | Unresolved:
        """Looks the server's name up, unless it is an address."""
        if (address := literal(server.host, server.port)) is not None:
            return Resolved((address,))
        try:
            return Resolved(await self._resolver.resolve(server))
        except OSError as error:
            return Unresolved(f"{server.host}: {(error.strerror or str(error)).lower()}")

    async def open(
        self, transport: LedgerTransport, server: Server, addresses: Sequence[Address]
    ) -> Sealed | ConnectionFailed:
        """Connects, reads the server's INFO, and encrypts the transport if the settings or the server demand it."""
        try:
            self._data = await self._credentials.read(server)
            sock, address = await open_first(server, addresses)
        except CredentialsUnusable as error:
            return Refused(Reason.CREDENTIALS, str(error))
        except Unreachable as error:
            if error.event.reason is not Reason.RESOURCES:
                transport.server.unreachable()
            return error.event
        except OSError as error:
            return Lost(Reason.RESOURCES, (error.strerror or str(error)).lower())
        try:
            await transport.open(sock)
            await self._receive_info(transport, server)
        except (ssl.SSLError, ssl.CertificateError) as error:
            text = _tls_text(error, self._ca)
            if self._tls_first and getattr(error, "reason", None) == "WRONG_VERSION_NUMBER":
                text = f"{text}; {_FIRST} = false if the server begins with INFO"
            return Refused(Reason.TLS, f"{server}: {text}")
        except _NoTls as error:
            return Refused(Reason.TLS, f"{server}: {error}")
        except ServerRefused as error:
            return refusal(server, str(error), Reason.PROTOCOL)
        except (InfoError, FrameError) as error:
            return Lost(Reason.PROTOCOL, f"{server}: {error}")
        except OSError as error:
            return lost(server, error)
        return Sealed(address)

    async def log_in(self, transport: LedgerTransport, server: Server) -> ConnectionFailed | None:
        """Logs in. Returns None when the server has accepted."""
        return await log_in(transport, server, self.info, self._data, self._name)

    async def _receive_info(self, transport: LedgerTransport, server: Server) -> None:
        """Receives INFO, before the TLS handshake or after it, if there is one."""
        context = self._data.tls
        first = context if self._tls_first else None
        if first is not None:
            await transport.seal(first, server.certificate_name)
        try:
            self.info = await transport.read_info()
        except ConnectionError as error:
            if self._tls_wanted and not self._tls_first:
                raise ConnectionResetError(f"{error} without INFO; {_FIRST} = true if it begins with TLS") from error
            raise
        self.largest_request = self.info.largest_request
        if first is not None:
            return
        if self._tls_wanted:
            # whatever INFO says: an attacker who can change it could also read what is sent next
            if not self.info.offers_tls:
                raise _NoTls("the server offers no TLS, and the settings want it")
            assert context is not None
            await transport.seal(context, server.certificate_name)
        elif self.info.tls_required:
            await transport.seal(ssl.create_default_context(), server.certificate_name)


class _NoTls(Exception):
    pass


async def scout(settings: NatsSettings, server: Server, name: str) -> Scouted:
    """Tries by a second connection whether a server accepts the log-in, and is not in lame-duck mode."""
    ledger = private_ledger()
    transport = LedgerTransport(ledger, RestartWindow(ledger), Sink(), Driver())
    attempts = ConnectAttempts(settings, name)
    try:
        async with asyncio.timeout(SCOUT_LIMIT):
            reached = await attempts.reach(transport, server)
            fit = isinstance(reached, Sealed) and not attempts.info.lame_duck
            return Scouted(server, fit and await attempts.log_in(transport, server) is None)
    except TimeoutError:
        return Scouted(server, False)
    finally:
        transport.close()


def _tls_text(error: Exception, ca: Path | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        # interpreters may come with authorities of their own
        trust = stores() if ca is None else f"nats.tls.ca, {ca}"
        return f"certificate refused: {error.verify_message}; trusted are {trust}"
    reason = getattr(error, "reason", None)
    return f"TLS: {str(reason or error).replace('_', ' ').lower()}"
