"""Prepares the memory of the template, so that its workers write to few of its pages.

A worker shares the pages of the template until it writes to one, which the kernel then copies (fork(2)).
"""

from __future__ import annotations

import gc
import sys

_POOL, _POOL_HEADER = 16 << 10, 48
"""CPython takes small objects of one size from pools of this size (Objects/obmalloc.c)."""
_LARGEST_OF_POOLS = 512
_NEW_POOL = 3
"""So many objects in a row at the first places of a pool show that it is new: the first of a used pool may be free."""
_MOST = 2_000
"""Objects of one size: the limit where no pool begins as is expected, as with another allocator."""
_kept: list[bytes] = []


def prepare() -> None:
    """Prepares this process. Called once, right before the first fork."""
    if sys.version_info < (3, 12):
        # a worker fills this cache anew, and drops references to names; from 3.12 on names have no counts
        sys._clear_type_cache()
    gc.collect()
    _fill_pools()  # after the other two, since what they free leaves holes in pools
    gc.freeze()  # a collection in a worker would write to the objects


def _fill_pools() -> None:
    """Occupies nearly all free places in pools, so that a worker's new objects lie in pools of their own."""
    for size in range(2, _LARGEST_OF_POOLS - sys.getsizeof(b""), 16):
        place = -(-sys.getsizeof(bytes(size)) // 16) * 16
        in_order = 0
        for _ in range(_MOST):
            _kept.append(bytes(size))
            offset = id(_kept[-1]) % _POOL
            in_order = in_order + 1 if offset == _POOL_HEADER + in_order * place else offset == _POOL_HEADER
            if in_order == _NEW_POOL:
                break
