"""Computes the figures of the last minute: rates and quantiles of each route, of its statistics of a minute ago and of
now, and a worker's share of a CPU.

The supervisor takes samples now and then and keeps them in a file, so that `ajhost status`, which asks no process, can
compare with them. If the supervisor hangs, the period is longer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from ajhost.adapters.linux import proc, runtime_directory
from ajhost.adapters.linux.stats_files import DIRECTORY, read_all
from ajhost.core.route_stats import RouteStats, clip
from ajhost.core.status_report import RouteStatus
from ajhost.core.timings import STATS_SAMPLE_INTERVAL, nanoseconds
from ajhost.core.untrusted_values import number, text, whole

_NAME = "history.json"
_EVERY_NS = nanoseconds(STATS_SAMPLE_INTERVAL)
_KEPT = 7
"""Samples: the oldest one is a minute old, or a little more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The sums at a moment of the monotonic clock (ns), and the CPU seconds of processes by their ids."""

    at_ns: int
    routes: Mapping[str | None, RouteStats] = field(default_factory=dict)
    cpu: Mapping[int, float] = field(default_factory=dict)


class StatsHistory:
    """The writer's side: one per host."""

    def __init__(self, runtime: Path) -> None:
        self._directory = runtime / DIRECTORY
        self._samples = _read(self._directory)

    def sample(self, pids: Iterable[int]) -> None:
        """Adds a sample of the statistics and of these processes' CPU time, if it is time to. Call it once a second."""
        now_ns = time.monotonic_ns()
        if self.due(now_ns):
            cpu = {}
            for pid in pids:
                with contextlib.suppress(OSError):  # it died in this moment
                    cpu[pid] = proc.cpu_seconds(pid)
            self.add(Sample(now_ns, read_all(self._directory), cpu))

    def due(self, now_ns: int) -> bool:
        """Whether it is time for a sample."""
        last = self._samples[-1].at_ns if self._samples else 0
        return not last or now_ns - last >= _EVERY_NS or now_ns < last

    def add(self, sample: Sample) -> None:
        """Adds a sample and replaces the file. If the file cannot be written, only the rates are lost."""
        # one that is later than now is of an earlier boot
        self._samples = [*(s for s in self._samples if s.at_ns < sample.at_ns), sample][-_KEPT:]
        content = orjson.dumps([_as_object(s) for s in self._samples], option=orjson.OPT_NON_STR_KEYS)
        with contextlib.suppress(OSError):
            runtime_directory.replace_file(self._directory, _NAME, content)


def baseline(runtime: Path, now_ns: int) -> Sample | None:
    """Returns the sample to compare with: the oldest that is kept; None without any of this boot."""
    return next((s for s in _read(runtime / DIRECTORY) if s.at_ns < now_ns), None)


def route_statuses(
    runtime: Path,
    routes: Iterable[str],
    running: Mapping[str | None, int],
    waiting: Mapping[str | None, int],
    before: Sample | None,
    recent_s: float,
) -> Iterator[RouteStatus]:
    """Yields what became of each route's requests, with rates and quantiles of the `recent_s` since `before`."""
    counted = read_all(runtime / DIRECTORY)
    for route in routes:
        stats = counted.get(clip(route), RouteStats())
        recent = RouteStats() if before is None else stats.since(before.routes.get(clip(route), RouteStats()))
        errors = sum(recent.failed.values()) + sum(recent.refused.values())
        yield RouteStatus(
            route,
            received=stats.answered + running.get(route, 0) + waiting.get(route, 0),
            completed=stats.completed,
            terminated=stats.terminated,
            failed=stats.failed,
            refused=stats.refused,
            running=running.get(route, 0),
            waiting=waiting.get(route, 0),
            per_second=recent.answered / recent_s if recent_s else 0.0,
            errors_per_second=errors / recent_s if recent_s else 0.0,
            p50_s=recent.running.quantile(0.5),
            p99_s=recent.running.quantile(0.99),
            waiting_p99_s=recent.waiting.quantile(0.99),
        )


def resources(pid: int, now_ns: int, before: Sample | None) -> tuple[int, float]:
    """Returns a process's resident bytes, and the CPUs it used since `before`; zeros if it is gone."""
    try:
        memory, used = proc.resident_bytes(pid), proc.cpu_seconds(pid)
    except OSError:
        return 0, 0.0
    if before is None or pid not in before.cpu:
        return memory, 0.0
    return memory, max(used - before.cpu[pid], 0.0) / ((now_ns - before.at_ns) / 1e9)


def _as_object(sample: Sample) -> dict[str, object]:
    routes = [(route, list(stats.numbers)) for route, stats in sample.routes.items()]
    return {"at_ns": sample.at_ns, "routes": routes, "cpu": dict(sample.cpu)}


def _read(directory: Path) -> list[Sample]:
    try:
        found = orjson.loads(runtime_directory.read_file(directory, _NAME))
        return [
            Sample(
                whole(sample["at_ns"]),
                {None if route is None else text(route): _stats(numbers) for route, numbers in sample["routes"]},
                {int(pid): number(seconds) for pid, seconds in sample["cpu"].items()},
            )
            for sample in found
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _stats(numbers: list[int]) -> RouteStats:
    if len(numbers) != len(RouteStats().numbers):
        raise ValueError("of another layout")
    return RouteStats(tuple(map(whole, numbers)))
