"""Processes of this control group that the kernel has killed for lack of memory, as the group counts them.

A worker's death by the OOM killer looks like any other `kill -9`. The count is the group's and not one process's, so it
says only that the kernel has killed some process of this service or container.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ajhost.settings.control_groups import control_groups

_PROCESS = Path("/proc/self")
_COUNTS = ("memory.events", "memory.oom_control")
"""The files of control groups of version 2 and of version 1; both have a line `oom_kill N`."""
_LIMITS = ("memory.max", "memory.limit_in_bytes")
_NO_LIMIT = 1 << 60
"""Version 1 writes "none" as the largest number of pages."""


class MemoryKills:
    """Counts the kills since the last call. `process`: the directory in /proc of a process of the group."""

    def __init__(self, process: Path = _PROCESS) -> None:
        self._groups = list(dict.fromkeys(control_groups(process, "memory")))
        self._seen = self._count()

    def explanation(self) -> str:
        """Says in words how many processes the kernel has killed since the last call, and the limit; empty if none."""
        count = self._count()
        new, self._seen = count - self._seen, count
        if new <= 0:
            return ""
        limit = self._limit()
        bound = "it has no limit" if limit is None else f"its limit is {limit >> 20} MiB"
        return f"the kernel has killed {new} of this control group's processes for memory; {bound}"

    def _count(self) -> int:
        """Returns the group's count, which includes its descendants, whichever group's limit was reached."""
        for group in self._groups:
            for name in _COUNTS:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    words = (group / name).read_text().split()
                    return int(words[words.index("oom_kill") + 1])
        return 0

    def _limit(self) -> int | None:
        """Returns the smallest limit, in bytes, of the group and its ancestors."""
        limits: list[int] = []
        for group in self._groups:
            for name in _LIMITS:
                with contextlib.suppress(OSError, ValueError):
                    limits.append(int((group / name).read_text()))
        return min((limit for limit in limits if limit < _NO_LIMIT), default=None)
