"""The outcomes of each route's requests: counters and histograms in shared memory, of one process, and their sums. Has
the bounds of the histograms, and computes their quantiles.

A file of statistics has one writer at a time, and outlives it. The next worker continues the counts of the last one, so
no death of a process makes the sums over all files decrease. Every word is one aligned 8-byte store, as in a ledger.

    header   64 words: magic, layout, how many places there are, how many are in use
    places   160 words each: the route's name (length, then UTF-8), counters, histograms

The first place is for requests without a route: malformed ones, and types that no route serves. A request is counted
when it is answered. Completed tasks have a histogram of running times of their own, so that one store counts both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, repeat
from operator import itemgetter

from ajhost.protocol.reasons import REASONS

BUCKETS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
"""Upper bounds in seconds, included; one more bucket counts longer times."""

_MAGIC = int.from_bytes(b"ajhostS\n", "big")
_LAYOUT = 2
_HEADER_WORDS = 64
HEADER_SIZE = _HEADER_WORDS * 8
"""The bytes of a file that `used_size` needs."""
_PLACE_WORDS = 160
MOST_PLACES = 4096
"""How many routes fit into one file."""
_MAX_NAME = 31 * 8
_ROOM_FOR_REASONS = 16

# words of a place
_NAME = 0
_TERMINATED = 32
_WAITING_SUM, _RUNNING_SUM = 33, 34
"""Seconds as floating-point numbers; all other words are integers."""
_FAILED = 40
_REFUSED = _FAILED + _ROOM_FOR_REASONS
_WAITING = _REFUSED + _ROOM_FOR_REASONS
_COMPLETED = _WAITING + len(BUCKETS) + 1
_NOT_COMPLETED = _COMPLETED + len(BUCKETS) + 1
_SHORT = BUCKETS[0]
_COUNTERS = _TERMINATED
"""The first number of a place; from here on all are added up over files."""
_NUMBERS = _PLACE_WORDS - _COUNTERS
assert _NOT_COMPLETED + len(BUCKETS) + 1 <= _PLACE_WORDS
assert len(REASONS) <= _ROOM_FOR_REASONS

_LARGEST = 1 << 48
_LONGEST = 1e12
"""Limits of a counter, and of a time in seconds. A larger one is a stray write. Sums over a host's files fit into 64
bits, as in JSON.
"""
_MICROSECONDS = 1e6
_REASON_INDEX = {reason: index for index, reason in enumerate(REASONS)}


TaskTimes = tuple[int, float, float]
"""A task that had started: its route, and for how many seconds it waited and ran. A plain tuple, since one is made for
every task.
"""
_route_of = itemgetter(0)


class StatsError(ValueError):
    """The file holds no statistics of this layout."""


class NoPlace(StatsError):
    """The file has no place for one more route."""


def file_size(places: int) -> int:
    """Returns the bytes of a file for so many routes, and for requests without one."""
    return (_HEADER_WORDS + (places + 1) * _PLACE_WORDS) * 8


class StatsWriter:
    """The counts of one process. A route is its number in the given order; `NO_ROUTE` stands for requests without one.

    :raises StatsError: when the buffer holds something else; `NoPlace` when no place is left for a route.
    """

    __slots__ = ("_places", "_words")

    NO_ROUTE = -1

    def __init__(self, buffer: memoryview, routes: Sequence[str]) -> None:
        """Makes an empty file of a buffer of zeros, and continues one that was in use."""
        whole = buffer[: len(buffer) // 8 * 8]
        self._words, times = words, _ = whole.cast("Q"), whole.cast("d")
        places = (len(words) - _HEADER_WORDS) // _PLACE_WORDS
        if places < 1:
            raise StatsError("shorter than statistics are")
        if words[0] == 0:
            words[1], words[2], words[3] = _LAYOUT, places, 1
            words[0] = _MAGIC
        if (words[0], words[1]) != (_MAGIC, _LAYOUT) or not 0 < words[3] <= places:
            raise StatsError("no statistics of this layout")
        words[2] = places
        self._drop_wild_numbers(times)
        known = {name: index for index, name in enumerate(_names(words)) if index}
        numbers = [known[r] if (r := clip(route)) in known else self._add(r) for route in routes]
        numbers.append(0)  # NO_ROUTE, -1, is the last one
        self._places = [(words[at : at + _PLACE_WORDS], times[at : at + _PLACE_WORDS]) for at in map(_place, numbers)]
        """Each route's place, as integers and as floating-point numbers."""

    def _drop_wild_numbers(self, times: memoryview[float]) -> None:
        """Sets numbers to 0 that a stray write has left and that one more would not fit into."""
        words = self._words
        for place in map(_place, range(words[3])):
            for at in range(place + _COUNTERS, place + _PLACE_WORDS):
                is_time = at - place in (_WAITING_SUM, _RUNNING_SUM)
                if not (0 <= times[at] < _LONGEST if is_time else words[at] <= _LARGEST):
                    words[at] = 0

    def _add(self, route: str) -> int:
        words, index = self._words, self._words[3]
        if index >= words[2]:
            raise NoPlace(f"no place for one more route than {index - 1}")
        name = route.encode()
        at = _place(index) + _NAME
        words[at] = len(name)
        words.cast("B")[(at + 1) * 8 :][: len(name)] = name
        words[3] = index + 1
        return index

    # One more does not fit into a number that a stray write has left (ValueError): the count is lost, and no answer.

    def completed(self, tasks: Sequence[TaskTimes]) -> float:
        """Counts at least one task that was answered with a result. Returns the sum of their running times (s).

        Built-in functions add up the tasks of a route before anything is stored: a Python loop, or a store for each
        task, costs more.
        """
        if len(tasks) == 1:  # the usual case, without a further call
            [(route, waited, ran)] = tasks
            words, times = self._places[route]
            times[_WAITING_SUM] += waited
            times[_RUNNING_SUM] += ran
            try:
                words[_WAITING if waited <= _SHORT else _WAITING + bisect_left(BUCKETS, waited)] += 1
                words[_COMPLETED if ran <= _SHORT else _COMPLETED + bisect_left(BUCKETS, ran)] += 1
            except ValueError:
                return ran
            return ran
        routes, waits, runs = zip(*tasks, strict=True)
        if routes.count(routes[0]) != len(routes):
            by_route = groupby(sorted(tasks), _route_of)
            return sum(self.completed(list(theirs)) for _, theirs in by_route)
        words, times = self._places[routes[0]]
        total: float = sum(runs)
        times[_WAITING_SUM] += sum(waits)
        times[_RUNNING_SUM] += total
        self._count_each(words, _WAITING, waits)
        self._count_each(words, _COMPLETED, runs)
        return total

    def _count_each(self, words: memoryview, histogram: int, seconds: Sequence[float]) -> None:
        try:
            if max(seconds) <= _SHORT:
                words[histogram] += len(seconds)
                return
            buckets = list(map(bisect_left, repeat(BUCKETS), seconds))
            for bucket in set(buckets):
                words[histogram + bucket] += buckets.count(bucket)
        except ValueError:
            return

    def terminated(self, route: int, waited: float, ran: float) -> None:
        """Counts a task whose answer says that it is not to be tried again."""
        self._count(route, _TERMINATED)
        self._observe(route, waited, ran)

    def failed(self, route: int, reason: str, waited: float, ran: float) -> None:
        """Counts a started task that was answered with an error."""
        self._count(route, _FAILED + _REASON_INDEX[reason])
        self._observe(route, waited, ran)

    def refused(self, route: int, reason: str) -> None:
        """Counts a request that was answered with an error before it started."""
        self._count(route, _REFUSED + _REASON_INDEX[reason])

    def take_back(self, route: int, reason: str | None, ran: float, *, completed: bool) -> None:
        """Corrects a task that was counted as completed, else as terminated: it failed for `reason`; None: terminated.

        `ran` may be a little longer than the counted time, so the next shorter bucket with a count is taken.
        """
        if completed:
            words, _ = self._places[route]
            counted = (b for b in range(bisect_left(BUCKETS, ran), -1, -1) if words[_COMPLETED + b])
            bucket = next(counted, None)
            if bucket is None:
                return
            self._count(route, _COMPLETED + bucket, -1)
            self._count(route, _NOT_COMPLETED + bucket)
        else:
            self._count(route, _TERMINATED, -1)
        self._count(route, _TERMINATED if reason is None else _FAILED + _REASON_INDEX[reason])

    def _count(self, route: int, word: int, count: int = 1) -> None:
        try:
            self._places[route][0][word] += count
        except ValueError:  # not `contextlib.suppress`, which costs more than the count
            return

    def _observe(self, route: int, waited: float, ran: float) -> None:
        self._count(route, _WAITING + bisect_left(BUCKETS, waited))
        self._count(route, _NOT_COMPLETED + bisect_left(BUCKETS, ran))
        _, times = self._places[route]
        times[_WAITING_SUM] += waited
        times[_RUNNING_SUM] += ran


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of times: `counts` by bucket, the last one for longer times than every bound; `total` in seconds."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """Returns upper bounds as text and the counts of times up to them, as Prometheus has it; the last is `+Inf`."""
        return list(zip((*map(str, BUCKETS), "+Inf"), accumulate(self.counts), strict=True))

    def quantile(self, share: float) -> float | None:
        """Returns the time (s) within which this share lies, interpolated in its bucket; None for an empty histogram.

        As `histogram_quantile` of Prometheus: evenly spread within a bucket, the last bound for longer times.
        """
        rank, so_far, lower = share * self.count, 0, 0.0
        if not self.count:
            return None
        for bound, count in zip(BUCKETS, self.counts, strict=False):
            if count and so_far + count >= rank:
                return lower + (bound - lower) * (rank - so_far) / count
            so_far, lower = so_far + count, bound
        return BUCKETS[-1]


@dataclass(frozen=True, slots=True)
class RouteStats:
    """The numbers of one route, of one process or added up over several; times are microseconds."""

    numbers: tuple[int, ...] = (0,) * _NUMBERS

    def __add__(self, other: RouteStats) -> RouteStats:
        return RouteStats(tuple(a + b for a, b in zip(self.numbers, other.numbers, strict=True)))

    def since(self, earlier: RouteStats) -> RouteStats:
        """Returns what was added since an earlier state."""
        return RouteStats(tuple(max(a - b, 0) for a, b in zip(self.numbers, earlier.numbers, strict=True)))

    @property
    def completed(self) -> int:
        """Tasks answered with a result."""
        return sum(self._buckets(_COMPLETED))

    @property
    def terminated(self) -> int:
        """Tasks whose answer says that they are not to be tried again."""
        return self.numbers[_TERMINATED - _COUNTERS]

    @property
    def failed(self) -> Mapping[str, int]:
        """Tasks that had started and were answered with an error, by reason."""
        return self._by_reason(_FAILED)

    @property
    def refused(self) -> Mapping[str, int]:
        """Requests answered with an error without having started, by reason."""
        return self._by_reason(_REFUSED)

    @property
    def waiting(self) -> Histogram:
        """From the receipt of a request to its handler's start."""
        return Histogram(self._buckets(_WAITING), self.numbers[_WAITING_SUM - _COUNTERS] / _MICROSECONDS)

    @property
    def running(self) -> Histogram:
        """From a handler's start to its answer."""
        both = zip(self._buckets(_COMPLETED), self._buckets(_NOT_COMPLETED), strict=True)
        return Histogram(tuple(a + b for a, b in both), self.numbers[_RUNNING_SUM - _COUNTERS] / _MICROSECONDS)

    @property
    def answered(self) -> int:
        """Requests that have their answer."""
        return self.completed + self.terminated + sum(self.failed.values()) + sum(self.refused.values())

    def _by_reason(self, first: int) -> dict[str, int]:
        at = first - _COUNTERS
        return dict(zip(REASONS, self.numbers[at : at + len(REASONS)], strict=True))

    def _buckets(self, first: int) -> tuple[int, ...]:
        at = first - _COUNTERS
        return self.numbers[at : at + len(BUCKETS) + 1]


def used_size(header: bytes) -> int:
    """Returns how many bytes of a file are in use. Raises StatsError if it is no file of statistics."""
    if len(header) < HEADER_SIZE:
        raise StatsError("shorter than a header")
    words = memoryview(header[:HEADER_SIZE]).cast("Q")
    if (words[0], words[1]) != (_MAGIC, _LAYOUT):
        raise StatsError("no statistics of this layout")
    return (_HEADER_WORDS + min(words[3], words[2], MOST_PLACES + 1) * _PLACE_WORDS) * 8


def read(data: bytes) -> dict[str | None, RouteStats]:
    """Returns the numbers of one file by route; None for requests without one. Raises StatsError.

    A stray write cannot be told from a count. But no content raises another exception, or gives a number beyond the
    limits.
    """
    used_size(data)
    whole = memoryview(data[: len(data) // 8 * 8])
    words, times = whole.cast("Q"), whole.cast("d")
    found: dict[str | None, RouteStats] = {}
    for index, name in enumerate(_names(words)):
        place = _place(index)
        stored = words[place + _COUNTERS : place + _PLACE_WORDS]
        numbers = [count if count <= _LARGEST else 0 for count in stored]
        for sum_of_times in (_WAITING_SUM, _RUNNING_SUM):
            seconds = times[place + sum_of_times]
            numbers[sum_of_times - _COUNTERS] = int(seconds * _MICROSECONDS) if 0 <= seconds < _LONGEST else 0
        found[name if index else None] = RouteStats(tuple(numbers))
    return found


def add_up(files: Iterable[Mapping[str | None, RouteStats]]) -> dict[str | None, RouteStats]:
    sums: dict[str | None, RouteStats] = {}
    for file in files:
        for route, stats in file.items():
            sums[route] = sums[route] + stats if route in sums else stats
    return sums


def clip(route: str) -> str:
    """Returns a route, cut to the bytes that a place can hold."""
    return route.encode()[:_MAX_NAME].decode(errors="ignore")


def _place(index: int) -> int:
    return _HEADER_WORDS + index * _PLACE_WORDS


def _names(words: memoryview) -> list[str]:
    places = (len(words) - _HEADER_WORDS) // _PLACE_WORDS
    names = []
    for index in range(min(words[3], places)):
        at = _place(index)
        raw = words.cast("B")[(at + 1) * 8 :][: min(words[at], _MAX_NAME)]
        names.append(raw.tobytes().decode(errors="replace"))
    return names
