"""A server in lame duck mode: it is about to stop, and is left once another server has let this process in.

A second connection tries the others one after the other meanwhile (`adapters/nats/connect_attempts.py`, `scout`).
"""

from __future__ import annotations

from ajhost.core.server_pool import Server, ServerPool
from ajhost.core.timings import SCOUT_INTERVAL


class LameDuck:
    """Which server is tried next, and when, while the present one is about to stop."""

    def __init__(self, pool: ServerPool) -> None:
        self._pool = pool
        self._others: list[Server] = []
        self._next_at = 0.0
        self._announced = self._scouting = False

    def announced(self) -> None:
        """The present server says that it is about to stop."""
        if not self._announced:
            self._announced, self._others = True, []

    def forget(self) -> None:
        """There is another connection from now on."""
        self._announced = self._scouting = False

    def is_due(self, now: float) -> bool:
        """Whether another server is to be tried now."""
        return self._announced and not self._scouting and now >= self._next_at

    def next_to_scout(self, present: Server, now: float) -> Server | None:
        """The server that is tried; `scouted` is told what came of it. None: there is no other."""
        self._others = self._others or self._pool.others(present, now)
        if not self._others:
            self._next_at = now + SCOUT_INTERVAL
            return None
        self._scouting = True
        return self._others.pop(0)

    def scouted(self, welcome: bool, now: float) -> bool:
        """Whether the present server is left for the one that was tried."""
        if not self._scouting:
            return False
        self._scouting = False
        if not welcome:
            self._next_at = now + (0.0 if self._others else SCOUT_INTERVAL)
        return welcome
