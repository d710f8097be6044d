"""The same news again and again: told at once the first time, then once in a while with how often it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from ajhost.core.timings import LOG_REPEAT

_MOST = 256
"""News that are kept apart; they come from outside."""

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
        """Whether to tell it now; otherwise it is counted, and `due` gives it later."""
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
        """News that were kept back long enough: the last of each key, how many, and over how many seconds.

        What has not come again for as long is forgotten: the next time it is told at once.
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
        """As `due`, but all that is kept back, and forgets everything: for the end of a process."""
        found = [(k.last, k.count, now - k.at) for k in self._told.values() if k.last is not None]
        self._told.clear()
        return found
