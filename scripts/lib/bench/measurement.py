"""Figures: percentiles, tables, CPU and memory of processes as the kernel counts them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` of them do not exceed. Raises ValueError if there are none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(max(math.ceil(percent / 100 * len(ordered)) - 1, 0), len(ordered) - 1)]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far, to the nanosecond; 0 if there is none."""
    clock = (~pid << 3) | 2  # clock_getcpuclockid(3), for which Python has no function; 2: what the scheduler counted
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes of a process: `uss` is its own, `pss` its share of everything that it maps."""

    uss: float
    pss: float


def memory(pid: int) -> Memory:
    """What `/proc/PID/smaps_rollup` says now."""
    kilobytes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        kilobytes[name] = int(value)
    own = kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"] + kilobytes.get("Private_Hugetlb:", 0)
    return Memory(own / 1024, kilobytes["Pss:"] / 1024)


async def busy_machine(seconds: float = 1.0) -> float:
    """The share of all CPUs, 0 to 1, that is in use. Ask it while nothing of one's own runs."""

    def times() -> tuple[int, int]:
        numbers = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]  # all; idle and waiting for a disk

    whole, idle = times()
    await asyncio.sleep(seconds)
    whole_after, idle_after = times()
    return 1 - (idle_after - idle) / max(whole_after - whole, 1)


def table(rows: Iterable[Sequence[object]]) -> str:
    """Columns; the first row is their heading, the first column stands left, the others right."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*texts, strict=True)]
    lines = []
    for row in texts:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.2f}" if abs(cell) < 10 else f"{cell:.1f}"
    return str(cell)
