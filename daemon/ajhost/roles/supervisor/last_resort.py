"""Subscribes the supervisor itself while no worker serves (`core/fleet.py` decides that), and before the connection of
the last subscriber is ended. `standby.py` takes what arrives.
"""

from __future__ import annotations

import asyncio

from ajhost.adapters.fault_guard import Background
from ajhost.core.fleet import Fleet
from ajhost.core.host_counters import Counters
from ajhost.core.timings import STANDBY_SUBSCRIBE_LIMIT
from ajhost.roles.supervisor.standby import Standby


class LastResort:
    """The standby's subscription: as the fleet needs it, and once `stopping` is set as `Shutdown` says."""

    def __init__(self, standby: Standby, fleet: Fleet, counters: Counters) -> None:
        self._standby, self._fleet, self._counters = standby, fleet, counters
        self.stopping = False
        self._subscribing: asyncio.Task[None] | None = None
        """Not None while it is subscribed. The task ends when the server has confirmed that."""
        self._lock = asyncio.Lock()

    @property
    def subscribed(self) -> bool:
        return self._subscribing is not None

    @property
    def idle(self) -> bool:
        """Whether it is out of the queue group, and not about to join it or to leave it."""
        return not self.subscribed and not self._lock.locked()

    def tick(self, background: Background) -> None:
        """Subscribes when no worker serves, and unsubscribes when one does. Call it at every tick."""
        needed = self._fleet.uncovered()
        if not self.stopping and needed != self.subscribed and not self._lock.locked():
            background.spawn(self.subscribe() if needed else self.unsubscribe())

    async def subscribe_if_last(self, patience: float | None) -> None:
        """Subscribes if no worker serves. Await it before the connection of the last subscriber is ended."""
        if self._fleet.uncovered() and not self.stopping:
            await self.subscribe(patience)

    async def subscribe(self, patience: float | None = STANDBY_SUBSCRIBE_LIMIT) -> None:
        """Subscribes. Returns when the server has confirmed it, has not for `patience` seconds, or workers serve again.

        Returns at once without a connection: a server that cannot be reached passes on no requests.
        """
        async with self._lock:
            if self._subscribing is None:
                standby = self._standby
                if not standby.connection.connected:
                    return
                self._counters.last_resort += 1
                self._subscribing = asyncio.create_task(standby.connection.subscribe(standby.subjects, standby.group))
            subscribing = self._subscribing
        await asyncio.wait({subscribing}, timeout=patience)

    async def unsubscribe(self) -> None:
        """Leaves the queue group. Returns when all that the server had sent is received, and so enqueued."""
        async with self._lock:
            if self._subscribing is not None:
                self._subscribing.cancel()
                await self._standby.connection.unsubscribe()
                self._subscribing = None
