"""Gives pages back to the kernel that hold nothing but zeros."""

from __future__ import annotations

import ctypes
import mmap

_LIBC = ctypes.PyDLL(None)
_ZEROS = bytes(mmap.PAGESIZE)


def release(start: int, size: int) -> None:
    """Releases the pages of zeros among `size` bytes at `start`, private memory that no other thread uses.

    Whoever uses such a page later gets zeros of the kernel (madvise(2)).
    """
    first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, start + size
    for page in range(first, end - mmap.PAGESIZE + 1, mmap.PAGESIZE):
        if ctypes.string_at(page, mmap.PAGESIZE) == _ZEROS:
            _LIBC.madvise(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), mmap.MADV_DONTNEED)
