"""Files of the runtime directory that one process writes and every process reads. The writer maps its file.

The lock is flock(2) and not a record lock: a process that reads all files reads its own too, and closing any descriptor
of a file would drop its record locks. A child that a handler forks keeps the lock while it lives; the next writer makes
another file then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from ajhost.adapters.linux import runtime_directory

_MOST_FILES = 4096


def take_first(directory: Path, suffix: str = "") -> int:
    """Locks the first file without a writer, or a new one, until this process ends, and returns its descriptor.

    :raises OSError: none is free, or the directory cannot be used.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    for number in range(_MOST_FILES):
        descriptor = runtime_directory.open_file(directory, f"{number}{suffix}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    raise OSError(errno.EMFILE, "no file is free")


def map_file(descriptor: int, size: int) -> memoryview:
    """Maps `size` bytes of a file, and allocates them.

    :raises OSError: there is no room.
    """
    os.posix_fallocate(descriptor, 0, size)  # a full file system is an error here, and no SIGBUS later
    return memoryview(mmap.mmap(descriptor, size))


def contents(directory: Path, size: int) -> Iterator[bytes]:
    """Yields up to `size` bytes of each file that can be read."""
    for path in sorted(directory.glob("*")):
        with contextlib.suppress(OSError):
            yield runtime_directory.read_file(directory, path.name, size)
