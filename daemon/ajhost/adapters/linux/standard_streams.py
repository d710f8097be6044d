"""Opens standard streams that a launcher has closed, flushes them, and keeps a copy of stderr for the host alone.

Code of handlers closes 2, or puts another file in its place (`os.dup2`, a double close and a reuse). Log lines would
then be lost, or written to that file, which may be a connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

_LOWEST = 10
"""The lowest number for the copy of stderr: a double close usually hits a lower one."""
_copy: int | None = None


def open_streams() -> None:
    """Opens the standard streams that are closed. Call it before anything else is imported.

    The next file that is opened gets a closed descriptor below 3, and output to stderr would be written to that file.
    Libraries open files as they are imported: libffi keeps itself open.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if not _is_open(descriptor):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def flush_streams() -> None:
    """Flushes stdout and stderr, or the streams by which an application has replaced them. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def own_stderr() -> int | None:
    """Returns the copy, made at the first call and kept over forks; None if there is no stderr."""
    global _copy
    if _copy is None or not _is_open(_copy):
        try:
            _copy = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
        except OSError:
            _copy = None
    return _copy


def has_own_stderr() -> bool:
    """Whether the copy was made, by this process or by the one that forked it, and is open."""
    return _copy is not None and _is_open(_copy)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
