"""Limits repeated reports: in each process the first is written at once, later ones after a pause, with their number;
stacks that are logged unasked once a minute for each route, by the whole host. `roles/attempt_records.py` has
`[log.limits]`, by which `Throttle.count` holds records back.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from zlib import crc32

from ajhost.core.timings import LOG_REPEAT, STACKS_REPEAT, nanoseconds

News = TypeVar("News")


@dataclass(slots=True)
class _Seen(Generic[News]):
    at: float
    told: int = 1
    """Events reported since `at`, the first one included."""
    silent: int = 0
    """Events since `at` that were not reported."""
    last: News | None = None


class Throttle(Generic[News]):
    """Counts events by key, and decides when to report them. Times are seconds of the monotonic clock.

    Keys may come from outside, so at most `most` of them are remembered.
    """

    def __init__(self, pause: float = LOG_REPEAT, most: int = 256) -> None:
        self._pause, self._most = pause, most
        self._seen: dict[str, _Seen[News]] = {}

    def count(self, key: str, now: float, news: News | None = None, most: int = 1) -> int:
        """Counts an event. Returns how many to report, this one included; 0: none now. `most`: reports in each pause.

        With `news`, `due` returns the last one of the key even if no further event comes.
        """
        seen = self._seen.pop(key, None)
        if seen is not None and now - seen.at < self._pause:
            self._seen[key] = seen  # behind all others
            if seen.told < most and not seen.silent:
                seen.told += 1
                return 1
            seen.silent += 1
            seen.last = news
            return 0
        if len(self._seen) >= self._most:
            # a key with news that `due` has to return is kept
            spare = next((other for other, known in self._seen.items() if known.last is None), None)
            if spare is None:
                return 1
            del self._seen[spare]
        self._seen[key] = _Seen(now)
        return 1 if seen is None else seen.silent + 1

    def due(self, now: float) -> list[tuple[News, int, float]]:
        """Returns what to report now: the last news of each key, the number of events, and in how many seconds.

        Forgets a key without a new event in that time, so that its next event is reported at once.
        """
        found: list[tuple[News, int, float]] = []
        for key, seen in list(self._seen.items()):
            if now - seen.at < self._pause:
                continue
            del self._seen[key]
            if seen.last is not None:
                found.append((seen.last, seen.silent, now - seen.at))
                self._seen[key] = _Seen(now)
        return found

    def rest(self, now: float) -> list[tuple[News, int, float]]:
        """Returns all that was held back, in the form of `due`, for the end of a process."""
        found = [(s.last, s.silent, now - s.at) for s in self._seen.values() if s.last is not None]
        self._seen.clear()
        return found


STACKS_WORDS = 64
"""The words are a hash table of the routes; two routes in the same word share one minute."""
_STACKS_REPEAT_NS = nanoseconds(STACKS_REPEAT)


class StacksGate:
    """Limits the stacks that processes of a host log unasked to one report a minute for each route.

    The first `STACKS_WORDS` of `words`, in the supervisor's ledger: when stacks were last logged, in monotonic
    nanoseconds. Two stores at the same moment mean two reports instead of one.
    """

    def __init__(self, words: MutableSequence[int] | memoryview) -> None:
        self._words = words

    def take(self, key: str, now_ns: int) -> bool:
        """Whether to log stacks now; if so, no process logs them for `key`, a route or a slot, for a minute."""
        word = crc32(key.encode()) % STACKS_WORDS
        if 0 <= now_ns - self._words[word] < _STACKS_REPEAT_NS and self._words[word]:
            return False
        self._words[word] = now_ns
        return True
