"""A connection beside the one that serves, to find out whether another server accepts the log-in before the present
one is left."""

from __future__ import annotations

import asyncio

from ajhost.adapters.nats.connect_attempts import ConnectAttempts
from ajhost.adapters.nats.interfaces import Driver
from ajhost.adapters.nats.private_ledger import NoRequests, private_ledger
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import Scouted
from ajhost.core.server_pool import Server
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import SCOUT_LIMIT
from ajhost.settings.values import NatsSettings


class _Undriven(Driver):
    """Only whether a server lets us in matters, which the attempt finds out by itself."""


async def scout(settings: NatsSettings, server: Server, name: str) -> Scouted:
    """Logs in at a server and leaves again."""
    ledger = private_ledger()
    transport = LedgerTransport(ledger, RestartWindow(ledger), NoRequests(), _Undriven())
    attempts = ConnectAttempts(settings, name)
    try:
        async with asyncio.timeout(SCOUT_LIMIT):
            failed = await attempts.get_in(transport, server)
            return Scouted(server, failed is None and not attempts.info.lame_duck)
    except TimeoutError:
        return Scouted(server, False)
    finally:
        transport.close()
