"""Lame duck mode: the server is about to stop. Chooses which other server a second connection tries meanwhile, and
decides that the process leaves once one has accepted its log-in (`scout` in `adapters/nats/connect_and_log_in.py`).
`core/login_gate.py` lets one process of the host after the other try.
"""

from __future__ import annotations

from ajhost.core.server_pool import Server, ServerPool
from ajhost.core.timings import SCOUT_INTERVAL


class LameDuck:
    """Chooses the next server to try, and the time, while the present one is about to stop."""

    def __init__(self, pool: ServerPool) -> None:
        self._pool = pool
        self._others: list[Server] = []
        self._next_at = 0.0
        self._announced = self._scouting = False

    def announced(self) -> None:
        """Takes note that the present server is about to stop."""
        if not self._announced:
            self._announced, self._others = True, []

    def forget(self) -> None:
        """Forgets the announcement: another connection is made."""
        self._announced = self._scouting = False

    def is_due(self, now: float) -> bool:
        """Whether another server is to be tried now."""
        return self._announced and not self._scouting and now >= self._next_at

    def next_to_scout(self, present: Server, now: float) -> Server | None:
        """Returns the server to try next, whose result goes to `scouted`; None if there is no other server."""
        self._others = self._others or self._pool.others(present, now)
        if not self._others:
            self._next_at = now + SCOUT_INTERVAL
            return None
        self._scouting = True
        return self._others.pop(0)

    def scouted(self, welcome: bool, now: float) -> bool:
        """Takes the result of a try. Returns whether to leave the present server for the one that was tried."""
        if not self._scouting:
            return False
        self._scouting = False
        if not welcome:
            self._next_at = now + (0.0 if self._others else SCOUT_INTERVAL)
        return welcome
