"""Limits repeated messages: the first is reported at once, later ones once in a while, with their count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from ajhost.core.timings import LOG_REPEAT

_MOST = 256
"""Limit for different keys, since they come from outside."""

News = TypeVar("News")


@dataclass(slots=True)
class _Told(Generic[News]):
    at: float
    count: int = 0
    last: News | None = None


class Digest(Generic[News]):
    """News by key. Times are seconds of the monotonic clock."""

    def __init__(self, every: float = LOG_REPEAT) -> None:
        self._every = every
        self._told: dict[str, _Told[News]] = {}

    def tell(self, key: str, news: News, now: float) -> bool:
        """Whether to report it now. Otherwise it is counted, and `due` returns it later."""
        known = self._told.get(key)
        if known is None:
            if len(self._told) >= _MOST:
                return True
            self._told[key] = _Told(now)
            return True
        known.count += 1
        known.last = news
        return False

    def due(self, now: float) -> list[tuple[News, int, float]]:
        """Messages to report now: the last one of each key, how many there were, and over how many seconds.

        A key without a new message for as long is forgotten, and its next message is reported at once.
        """
        found: list[tuple[News, int, float]] = []
        for key, known in list(self._told.items()):
            if now - known.at < self._every:
                continue
            if known.last is None:
                del self._told[key]
            else:
                found.append((known.last, known.count, now - known.at))
                self._told[key] = _Told(now)
        return found

    def rest(self, now: float) -> list[tuple[News, int, float]]:
        """As `due`, but returns all that was kept back, for the end of a process."""
        found = [(k.last, k.count, now - k.at) for k in self._told.values() if k.last is not None]
        self._told.clear()
        return found
