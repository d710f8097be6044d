"""Reads the state, times and limits of processes and their threads in /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ajhost.core.liveness_rules import ThreadTimes

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_RUNNABLE = "R"
"""The letter for a thread that runs or could run, also if its control group's quota is used up."""


def field(file: str, pattern: str) -> str:
    """Returns the pattern's group in a line of a file of /proc; empty without such a line, or if it may not be read."""
    with contextlib.suppress(OSError):
        found = re.search(f"^{pattern}", Path(f"/proc/{file}").read_text(), re.MULTILINE)
        return "" if found is None else found[1]
    return ""


def _stat(process: int | str) -> list[str]:
    """Returns the fields of `stat` from the state on: the name before them, in parentheses, may contain any byte."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def state_of(process: int | str) -> str:
    """Returns the letter of the state (proc(5)) of a process, or of `PID/task/TID`; empty if it is gone."""
    try:
        return _stat(process)[0]
    except (OSError, IndexError):
        return ""


def is_dead(process: int | str) -> bool:
    """Whether a process has ended: it waits to be reaped, or is gone."""
    return state_of(process) in ("Z", "X", "")


def children(process: int | str = "self") -> set[int]:
    """Returns the children of a process, including dead ones that are not reaped; none if it is gone."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # a thread, or the process, has just ended
        for task in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(f"/proc/{process}/task/{task}/children").read_text().split()))
    return found


def descriptors(pid: int) -> tuple[int, int]:
    """Returns how many descriptors a process has open, and how many it may have; zeros if it is gone or unreadable."""
    try:
        used = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0
    return used, int(field(f"{pid}/limits", r"Max open files\s+(\d+)") or 0)


def caught_signals(process: int | str) -> int:
    """Returns the mask of the signals that a process, or `self`, handles, in C as well (proc_pid_status(5), SigCgt)."""
    return int(field(f"{process}/status", r"SigCgt:\s*([0-9a-f]+)") or "0", 16)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal. Without one, the signal may end it."""
    return bool(caught_signals(pid) >> (number - 1) & 1)


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has used, in seconds.

    :raises OSError: when the process is gone.
    """
    return _ticks(_stat(pid)) / _TICKS


def _ticks(stat: list[str]) -> int:
    return int(stat[11]) + int(stat[12])


def resident_bytes(pid: int) -> int:
    """Returns the resident set of a process, in bytes, shared pages included.

    :raises OSError: when the process is gone.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """Returns the times of each thread, by its number; none of a process that is gone.

    A kernel without /proc/PID/schedstat (CONFIG_SCHED_INFO) reports no run delay, so that is 0 there. Starvation then
    shows only in a thread that is runnable and has not run.
    """
    found: dict[int, ThreadTimes] = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(thread)] = _times(f"{pid}/task/{thread}")
    return found


def _times(thread: str) -> ThreadTimes:
    stat = _stat(thread)
    runnable = stat[0] == _RUNNABLE
    try:
        ran, waited, _ = Path(f"/proc/{thread}/schedstat").read_text().split()
    except FileNotFoundError:
        return ThreadTimes(runnable, _ticks(stat) * (1_000_000_000 // _TICKS), 0)
    return ThreadTimes(runnable, int(ran), int(waited))
