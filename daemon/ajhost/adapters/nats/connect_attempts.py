"""What it takes to get into one server, step by step: each step ends with an event for the connection's machine."""

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
from ajhost.settings.values import NatsSettings

_FIRST = "[nats.tls] first"
_log = logging.getLogger("ajhost.nats")


class ConnectAttempts:
    """Attempts with these settings, one after another."""

    def __init__(self, settings: NatsSettings, name: str) -> None:
        self._name = name
        self._resolver = Resolver()
        self.reconfigure(settings)
        self._data = LogInData()
        self.info = ServerInfo()
        """What the present server said of itself; after the log-in its `max_payload` is the user's own limit."""
        self.largest_request = 0
        """Bytes of the largest request that the present server may hand over."""

    @property
    def jwt_expires(self) -> float | None:
        """When the JWT that was shown last does, in seconds since 1970; None if there was none, or it says none."""
        return None if self._data.creds is None else self._data.creds.expires

    def reconfigure(self, settings: NatsSettings) -> None:
        """Other credentials from the next attempt on."""
        self._credentials = Credentials(settings)
        self._tls_wanted = wants_tls(settings)
        self._tls_first = settings.tls is not None and settings.tls.first
        self._ca = settings.tls.ca if settings.tls is not None else None

    async def connect(
        self, transport: LedgerTransport, server: Server
    ) -> Unresolved | ConnectionFailed | None:
        """All steps, one after another; None when the server has let us in."""
        reached = await self.reach(transport, server)
        return await self.log_in(transport, server) if isinstance(reached, Sealed) else reached

    async def reach(
        self, transport: LedgerTransport, server: Server
    ) -> Sealed | Unresolved | ConnectionFailed:
        """All steps before the log-in."""
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
        """Connects, hears the server's INFO, and seals the transport as the settings want it."""
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
        """Shows our credentials; None when the server has let us in."""
        return await log_in(transport, server, self.info, self._data, self._name)

    async def _receive_info(self, transport: LedgerTransport, server: Server) -> None:
        """Receives INFO, before or behind the TLS handshake, if there is to be one."""
        context = self._data.tls
        first = context if self._tls_first else None
        if first is not None:
            await transport.seal(first, server.certificate_name)
        try:
            self.info = await transport.read_info()
        except ConnectionError as error:
            if self._tls_wanted and not self._tls_first:
                raise ConnectionResetError(
                    f"{error} without INFO; {_FIRST} = true if it begins with TLS"
                ) from error
            raise
        self.largest_request = self.info.largest_request
        if first is not None:
            return
        if self._tls_wanted:
            # whatever INFO says: who could change it could also read what we send next
            if not self.info.offers_tls:
                raise _NoTls("the server offers no TLS, and the settings want it")
            assert context is not None
            await transport.seal(context, server.certificate_name)
        elif self.info.tls_required:
            await transport.seal(ssl.create_default_context(), server.certificate_name)


class _NoTls(Exception):
    pass


async def scout(settings: NatsSettings, server: Server, name: str) -> Scouted:
    """Whether a server lets us in and is not about to stop, by a connection beside the one that serves."""
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
