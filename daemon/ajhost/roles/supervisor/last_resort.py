"""The last resort: the supervisor is subscribed itself while no worker is."""

from __future__ import annotations

from ajhost.adapters.fault_guard import Background
from ajhost.core.fleet import Fleet
from ajhost.roles.supervisor.standby import Standby


class LastResort:
    """Subscribes and unsubscribes the standby as the fleet needs it, until the host stops."""

    def __init__(self, standby: Standby, fleet: Fleet) -> None:
        self._standby, self._fleet = standby, fleet
        self.stopping = False
        """From then on `Shutdown` says whether the standby is subscribed."""

    async def subscribe_if_last(self, patience: float | None) -> None:
        """Awaited before the connection of what may be the last subscriber ends, for at most so many seconds."""
        if self._fleet.uncovered() and not self.stopping:
            await self._standby.subscribe(patience)

    def tick(self, background: Background) -> None:
        """Subscribes when no worker serves, and unsubscribes when one does. Call it at every tick."""
        needed, standby = self._fleet.uncovered(), self._standby
        if not self.stopping and needed != standby.subscribed and not standby.changing:
            background.spawn(standby.subscribe() if needed else standby.unsubscribe())
