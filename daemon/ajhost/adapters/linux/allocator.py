"""glibc's allocator gives back to the kernel what is free (mallopt(3), malloc_trim(3))."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None)
_ARENA_MAX = -8
"""M_ARENA_MAX of malloc.h."""
_ARENAS = 2


def use_few_arenas() -> None:
    """Threads share two arenas, as with MALLOC_ARENA_MAX of the package's units: each keeps up to 64 MiB."""
    if "MALLOC_ARENA_MAX" not in os.environ and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Gives free memory back. Once a large block was freed, glibc keeps all blocks of its size."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
