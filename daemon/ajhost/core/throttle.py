"""Counts repeated events: the first is reported at once, later ones once in a while, with their number."""

from __future__ import annotations


class Throttle:
    """Counts events by name, and decides when to report them. Times are seconds of the monotonic clock.

    Names may come from outside, so only the last `names` of them are remembered.
    """

    __slots__ = ("_names", "_pause", "_seen")

    def __init__(self, pause: float, names: int = 64) -> None:
        self._pause = pause
        self._names = names
        self._seen: dict[str, tuple[float, int]] = {}

    def count(self, name: str, now: float) -> int:
        """Counts one more event. Returns how many to report, this one included; 0: none now."""
        told, silent = self._seen.get(name, (-self._pause, 0))
        if now - told < self._pause:
            self._seen[name] = told, silent + 1
            return 0
        self._seen.pop(name, None)
        if len(self._seen) >= self._names:
            del self._seen[next(iter(self._seen))]
        self._seen[name] = now, 0
        return silent + 1
