"""A copy of the descriptor 2 that only the host knows.

Code of handlers closes 2, or puts another file in its place (`os.dup2`, a double close and a reuse). Log lines would
then be lost, or end up in that file, which may be a connection.
"""

from __future__ import annotations

import fcntl
import os

_LOWEST = 10
"""The first number for it: lower ones are what a double close hits."""
_copy: int | None = None


def own_stderr() -> int | None:
    """The copy, made at the first call and kept over forks; None if there is no stderr."""
    global _copy
    if _copy is None or not _is_open(_copy):
        try:
            _copy = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
        except OSError:
            _copy = None
    return _copy


def is_kept() -> bool:
    """Whether the copy was made, by this process or by the one that forked it, and is open."""
    return _copy is not None and _is_open(_copy)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
