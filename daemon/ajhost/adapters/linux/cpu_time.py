"""What the kernel tells of the CPU time of a process's threads. Linux only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ajhost.core.starvation import ThreadTimes

_RUNNABLE = "R"
"""The letter of proc(5) for a thread that runs or could run, one whose group's quota is used up included."""
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """The times of each thread, by its number; none of a process that is gone.

    A kernel without /proc/PID/schedstat (CONFIG_SCHED_INFO) tells no run delay: what a runnable thread did not run is
    all that shows then.
    """
    found: dict[int, ThreadTimes] = {}
    tasks = Path(f"/proc/{pid}/task")
    with contextlib.suppress(OSError):
        for thread in os.listdir(tasks):
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(thread)] = _times(tasks / thread)
    return found


def _times(thread: Path) -> ThreadTimes:
    fields = (thread / "stat").read_text().rpartition(")")[2].split()
    runnable = fields[0] == _RUNNABLE
    try:
        ran, waited, _ = (thread / "schedstat").read_text().split()
    except FileNotFoundError:
        return ThreadTimes(runnable, (int(fields[11]) + int(fields[12])) * _TICK_NS, 0)
    return ThreadTimes(runnable, int(ran), int(waited))
