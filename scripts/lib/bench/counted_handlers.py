"""A no-op in a worker that notes how many completed tasks are counted at once."""

from __future__ import annotations

from collections.abc import Sequence

from ajhost import Task
from ajhost.core.route_stats import StatsWriter, TaskTimes
from scripts.lib.bench.handlers import noop

__all__ = ["batch", "noop"]

_count = StatsWriter.completed
_sizes: list[int] = []


def _noted(writer: StatsWriter, tasks: Sequence[TaskTimes]) -> float:
    _sizes.append(len(tasks))
    return _count(writer, tasks)


# in the processes that import this alone
StatsWriter.completed = _noted  # type: ignore[method-assign, assignment]


async def batch(task: Task) -> float:
    """How many were counted at once, on average, since somebody asked last."""
    mean = sum(_sizes) / len(_sizes) if _sizes else 0.0
    _sizes.clear()
    return mean
