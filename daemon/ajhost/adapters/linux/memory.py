"""Gives free memory back to the kernel, and counts the processes that it has killed for lack of memory (`max_memory` is
compared by `roles/supervisor/memory_limit.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from pathlib import Path

from ajhost.settings.control_groups import control_groups

_LIBC = ctypes.CDLL(None)
_LIBC_LOCKED = ctypes.PyDLL(None)
"""Keeps the interpreter's lock during a call."""
_ARENA_MAX = -8
"""M_ARENA_MAX of malloc.h."""
_ARENAS = 2
_ZEROS = bytes(mmap.PAGESIZE)
_COUNTS = ("memory.events", "memory.oom_control")
"""The files of control groups of version 2 and of version 1; both have a line `oom_kill N`."""
_LIMITS = ("memory.max", "memory.limit_in_bytes")
_NO_LIMIT = 1 << 60
"""Version 1 writes "none" as the largest number of pages."""


def use_few_arenas() -> None:
    """Lets threads share two arenas of glibc (mallopt(3)), as MALLOC_ARENA_MAX in the package's units does: each keeps
    up to 64 MiB.
    """
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_ARENA_MAX, _ARENAS)


def trim_heap() -> None:
    """Gives glibc's free memory back (malloc_trim(3)): once a large block was freed, glibc keeps freed blocks of up to
    its size.
    """
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def release_zero_pages(start: int, size: int) -> None:
    """Releases the pages of zeros among `size` bytes at `start`, private memory that no other thread uses.

    The next access to such a page gets zeros of the kernel (madvise(2)).
    """
    first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, start + size
    for page in range(first, end - mmap.PAGESIZE + 1, mmap.PAGESIZE):
        if ctypes.string_at(page, mmap.PAGESIZE) == _ZEROS:
            _LIBC_LOCKED.madvise(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), mmap.MADV_DONTNEED)


class MemoryKills:
    """Counts the processes of this control group that the kernel has killed for lack of memory, since the last call.

    A worker's death by the OOM killer looks like any other `kill -9`. The count is the group's and not one process's,
    so it says only that the kernel has killed some process of this service or container.
    """

    def __init__(self) -> None:
        self._groups = list(dict.fromkeys(control_groups(Path("/proc/self"), "memory")))
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
