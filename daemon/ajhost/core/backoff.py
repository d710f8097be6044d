"""Pauses that grow with each failure in a row: before a server is tried again (partly random, longer if an operator has
to act), and before a slot's worker is started again (none after its first death, then 0.1 to 10 s).
"""

from __future__ import annotations

from dataclasses import dataclass

from ajhost.core.connection_table import LOCKS_OUT
from ajhost.core.timings import (
    LOCKED_OUT_RETRY_FIRST,
    LOCKED_OUT_RETRY_LONGEST,
    RESPAWN_FIRST,
    RESPAWN_LONGEST,
    RETRY_FIRST,
    RETRY_LONGEST,
    STABLE_AFTER,
)
from ajhost.ledger.connection_status import Reason


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses (s) before a server is tried again: from `first` on, each `growth` times as long, up to `most`."""

    first: float
    growth: float
    most: float

    def pause(self, failures: int, share: float) -> float:
        """Returns the pause after `failures` in a row, at least 1. `share`, 0 to 1, is the jitter: half to whole."""
        whole = min(self.first * self.growth ** min(failures - 1, 50), self.most)
        return whole * (0.5 + 0.5 * share)


_QUICK = Backoff(RETRY_FIRST, 1.3, RETRY_LONGEST)
_SLOW = Backoff(LOCKED_OUT_RETRY_FIRST, 2.0, LOCKED_OUT_RETRY_LONGEST)
BACKOFF: dict[Reason, Backoff] = {reason: _SLOW if reason in LOCKS_OUT else _QUICK for reason in Reason}
"""By reason. A process that is locked out also waits for its turn on this host (`core/login_gate.py`)."""


@dataclass(slots=True)
class RespawnBackoff:
    """The time from which on a slot's next worker may be started. It grows with each worker that dies early."""

    _delay: float = 0.0
    _not_before: float = 0.0

    def is_over(self, now: float) -> bool:
        """Whether a worker may be started."""
        return now >= self._not_before

    def worker_died(self, ready_at: float | None, now: float) -> None:
        """Sets the pause before the next worker. The dead one had served since `ready_at`; None: never.

        The first death has no pause, since it may have had any cause. The next early ones have `RESPAWN_FIRST`, which
        doubles. A worker that had served for `STABLE_AFTER` resets it.
        """
        if ready_at is not None and now - ready_at >= STABLE_AFTER:
            self._delay, self._not_before = 0.0, 0.0
            return
        self._not_before = now + self._delay
        self._delay = min(max(RESPAWN_FIRST, self._delay * 2), RESPAWN_LONGEST)
