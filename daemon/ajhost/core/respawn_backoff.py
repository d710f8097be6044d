"""The pause before a worker that died is started again: none at first, then longer with each that dies early."""

from __future__ import annotations

from dataclasses import dataclass

from ajhost.core.timings import RESPAWN_FIRST, RESPAWN_LONGEST, STABLE_AFTER


@dataclass(slots=True)
class RespawnBackoff:
    """When a slot's next worker may be started, and how long the one after it waits if that dies early too."""

    _delay: float = 0.0
    _not_before: float = 0.0

    def is_over(self, now: float) -> bool:
        """Whether a worker may be started."""
        return now >= self._not_before

    def worker_died(self, ready_at: float | None, now: float) -> None:
        """The slot's worker, which served since `ready_at`, or never, is dead.

        The first one is replaced at once: its death may have had any cause. One that served for `STABLE_AFTER` makes
        the next one the first again.
        """
        if ready_at is not None and now - ready_at >= STABLE_AFTER:
            self._delay, self._not_before = 0.0, 0.0
            return
        self._not_before = now + self._delay
        self._delay = min(max(RESPAWN_FIRST, self._delay * 2), RESPAWN_LONGEST)
