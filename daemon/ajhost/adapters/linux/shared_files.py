"""Files of a fixed size in the runtime directory: each is written by one process, and read by everybody.

`flock` and not a record lock: whoever reads all files reads its own too, and closing any descriptor of a file drops its
process's record locks (fcntl(2)). A child that a handler forks keeps the lock for as long as it lives; the next process
takes another file then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_FILES = 4096


def take(directory: Path, size: int) -> memoryview:
    """The first file that nobody writes to, or a new one of zeros, for the rest of this process's life.

    :raises OSError: there is no room, or the directory cannot be used.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    for number in range(_MOST_FILES):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(directory / str(number), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        os.posix_fallocate(descriptor, 0, size)  # no room is an error here, rather than a SIGBUS later
        return memoryview(mmap.mmap(descriptor, size))
    raise OSError(errno.EMFILE, "no file is free")


def contents(directory: Path, size: int) -> Iterator[bytes]:
    """Up to `size` bytes of each file that can be read. Links are not followed: who asks may be root."""
    for path in sorted(directory.glob("*")):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    yield os.pread(descriptor, size, 0)
            finally:
                os.close(descriptor)
