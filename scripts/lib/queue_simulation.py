"""The ideal to compare waiting times with: the same arrivals and service times through one queue for all slots.

`arrivals` makes what `ajload -r RATE -n COUNT --sleep DIST --seed SEED` makes, with its generator (xorshift64*), and
`read_trace` reads what it really did.
"""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_MASK = (1 << 64) - 1
_TWO_53 = float(1 << 53)


class Arrival(NamedTuple):
    """A task: when it arrives, and how long a slot is busy with it, in milliseconds."""

    at: float
    service: float


def parse_distribution(text: str) -> list[tuple[float, float]]:
    """`5:90,200:10` as (value, weight) pairs; a weight is 1 if left out."""
    pairs = (part.partition(":") for part in text.split(","))
    return [(float(value), float(weight or 1)) for value, _, weight in pairs]


def mean(distribution: Iterable[tuple[float, float]]) -> float:
    """The mean value."""
    pairs = list(distribution)
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def arrivals(seed: int, rate: float, count: int, distribution: str) -> Iterator[Arrival]:
    """`count` Poisson arrivals, `rate` a second, with service times of that distribution."""
    uniform = _uniform(seed)
    pairs = parse_distribution(distribution)
    total = sum(weight for _, weight in pairs)
    at = 0.0
    for _ in range(count):
        place = next(uniform) * total
        service = pairs[-1][0]
        for value, weight in pairs:
            if place < weight:
                service = value
                break
            place -= weight
        at -= math.log(next(uniform)) / rate
        yield Arrival(at * 1000, service)


def _uniform(seed: int) -> Iterator[float]:
    state = (seed * 0x9E3779B97F4A7C15 + 1) & _MASK
    number = 0
    while True:
        state ^= state >> 12
        state = (state ^ (state << 25)) & _MASK
        state ^= state >> 27
        number += 1
        if number > 8:  # ajload throws the first eight away
            yield (((state * 2685821657736338717 & _MASK) >> 11) + 0.5) / _TWO_53


def read_trace(path: Path) -> list[tuple[Arrival, float]]:
    """The arrivals of an `ajload --trace` file, each with its measured latency in milliseconds (-1: no answer)."""
    with path.open() as file:
        return [
            (Arrival(float(row["sched_s"]) * 1000, float(row["svc_ms"])), float(row["lat_ms"]))
            for row in csv.DictReader(file)
        ]


def waiting_times(tasks: Iterable[Arrival], slots: int) -> list[float]:
    """Milliseconds that each waits for the first free of `slots`, first come, first served.

    No dispatcher waits less without changing the order.
    """
    free = [0.0] * slots
    waits = []
    for task in tasks:
        start = max(task.at, heapq.heappop(free))
        heapq.heappush(free, start + task.service)
        waits.append(start - task.at)
    return waits
