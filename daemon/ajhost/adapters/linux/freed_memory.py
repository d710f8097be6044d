"""Gives free memory of this process back to the kernel: what glibc keeps (mallopt(3), malloc_trim(3)), and pages of
zeros."""

from __future__ import annotations

import ctypes
import mmap
import os

_LIBC = ctypes.CDLL(None)
_LIBC_LOCKED = ctypes.PyDLL(None)
"""Keeps the interpreter's lock during a call."""
_ARENA_MAX = -8
"""M_ARENA_MAX of malloc.h."""
_ARENAS = 2
_ZEROS = bytes(mmap.PAGESIZE)


def use_few_arenas() -> None:
    """Lets threads share two arenas, as MALLOC_ARENA_MAX in the package's units does: each keeps up to 64 MiB."""
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_ARENA_MAX, _ARENAS)


def trim_heap() -> None:
    """Gives glibc's free memory back: once a large block was freed, glibc keeps freed blocks of up to its size."""
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
