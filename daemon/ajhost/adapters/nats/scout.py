"""A connection beside the one that serves, to find out whether another server accepts the log-in before the present
one is left."""

from __future__ import annotations

import asyncio
import mmap

from ajhost.adapters.nats.connect_attempts import ConnectAttempts
from ajhost.adapters.nats.interfaces import Driver, Sink
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import Resolved, Scouted, Sealed
from ajhost.core.restart_window import RestartWindow
from ajhost.core.server_pool import Server
from ajhost.core.timings import SCOUT_LIMIT
from ajhost.ledger.layout import Geometry, Identity, create
from ajhost.ledger.receive_buffer import READ_SIZE
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.server_info import LONGEST_INFO
from ajhost.settings.values import NatsSettings

_ENTRIES = 8


def private_ledger(frame: int = LONGEST_INFO) -> LedgerWriter:
    """A ledger in private memory, for a connection that no other process takes over."""
    geometry = Geometry(_ENTRIES, (2 * frame + 4 * READ_SIZE + 4095) & ~4095, 1 << 16)
    memory = memoryview(mmap.mmap(-1, geometry.size))
    create(memory, geometry, Identity(1, 0, 0))
    return LedgerWriter(memory)


class NoRequests(Sink):
    """The sink of a connection that subscribes to nothing, and that nobody inherits."""


class _Undriven(Driver):
    """Only whether a server lets us in matters, which the attempt finds out by itself."""


async def scout(settings: NatsSettings, server: Server, name: str) -> Scouted:
    """Logs in at a server and leaves again."""
    ledger = private_ledger()
    transport = LedgerTransport(ledger, RestartWindow(ledger), NoRequests(), _Undriven())
    attempts = ConnectAttempts(settings, name)
    try:
        async with asyncio.timeout(SCOUT_LIMIT):
            found = await attempts.resolve(server)
            if not isinstance(found, Resolved):
                return Scouted(server, False)
            opened = await attempts.open(transport, server, found.addresses)
            welcome = isinstance(opened, Sealed) and not attempts.info.lame_duck
            welcome = welcome and await attempts.log_in(transport, server) is None
            return Scouted(server, welcome)
    except TimeoutError:
        return Scouted(server, False)
    finally:
        transport.close()
