"""What /proc tells about processes and their threads (proc(5))."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ajhost.core.starvation import ThreadTimes

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_RUNNABLE = "R"
"""The letter for a thread that runs or could run, one whose group's quota is used up included."""


def field(file: str, pattern: str) -> str:
    """What a line of a file of /proc says in the pattern's group; empty without such a line, or if nobody may know."""
    with contextlib.suppress(OSError):
        found = re.search(f"^{pattern}", Path(f"/proc/{file}").read_text(), re.MULTILINE)
        return "" if found is None else found[1]
    return ""


def _stat(process: int | str) -> list[str]:
    """The fields of `stat` from the state on: the name before them, in parentheses, may hold anything."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def state_of(process: int | str) -> str:
    """The letter that `ps` shows (proc(5)) for a process, or `PID/task/TID`; empty if there is no such."""
    try:
        return _stat(process)[0]
    except (OSError, IndexError):
        return ""


def children() -> set[int]:
    """The children of this process, those that are dead and not reaped included."""
    return children_of(os.getpid())


def children_of(pid: int) -> set[int]:
    """As `children`, of another process; none of one that is gone."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # a thread, or the process, has just ended
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def descriptors(pid: int) -> tuple[int, int]:
    """How many descriptors a process has open, and how many it may have; zeros when nobody may know, or it is gone."""
    try:
        used = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0
    return used, int(field(f"{pid}/limits", r"Max open files\s+(\d+)") or 0)


def caught_signals(process: int | str) -> int:
    """The bit mask of the signals that a process, or `self`, handles, in C as well (proc_pid_status(5), SigCgt)."""
    return int(field(f"{process}/status", r"SigCgt:\s*([0-9a-f]+)") or "0", 16)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; else it could end it."""
    return bool(caught_signals(pid) >> (number - 1) & 1)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, in seconds.

    :raises OSError: when the process is gone.
    """
    return _ticks(_stat(pid)) / _TICKS


def _ticks(stat: list[str]) -> int:
    return int(stat[11]) + int(stat[12])


def resident_bytes(pid: int) -> int:
    """The resident set of a process, in bytes, shared pages included.

    :raises OSError: when the process is gone.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """The times of each thread, by its number; none of a process that is gone.

    A kernel without /proc/PID/schedstat (CONFIG_SCHED_INFO) tells no run delay: what a runnable thread did not run is
    all that shows then.
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
