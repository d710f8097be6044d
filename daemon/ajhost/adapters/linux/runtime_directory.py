"""The runtime directory: refuses one of another user or that others may write to, locks it against a second host, and
opens its files so that no link or FIFO is followed.

Another user may have made a directory of that name in /tmp, with links in it: a host that used it would write to their
targets. And the service's user may put a link or a FIFO where root's `ajhost status` reads. So the directory has to
belong to the host's user, and every file is opened below its descriptor and has to be a regular one of the same owner.

The lock is on the directory itself (flock(2)): it cannot be removed apart from it, and systemd-tmpfiles does not clean
a directory that is locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ajhost.adapters.linux.descriptors import closing

LOCK, CONTROL, VIEW = "lock", "control", "view"
"""Names in it: the file with the host's pid, the socket for users who may act, the socket for users who may look."""
_LONGEST_PID = 7
"""Digits of 2**22, the largest that Linux gives (proc_sys_kernel(5), pid_max)."""
_MODE = 0o750
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
ANOTHER = "name one of this user's by `directory` in [runtime], or set XDG_RUNTIME_DIR, as a login does"
"""Advice in error texts: cron, sudo and systemd-run give a user no directory of a session."""
_NO_DIRECTORY = "found another user's link, or a file; allowed: a directory of our own"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MOST_FILES = 4096
"""Of those that `take_first` makes in a directory."""


class UnfitDirectory(Exception):
    """The runtime directory cannot be used; the text names it, what was found and what is allowed."""


def prepare(directory: Path) -> int:
    """Makes the directory if there is none. Returns a descriptor of it, for `lock` and `is_same`.

    :raises UnfitDirectory: when it is a link, another user's, writable by others, or this user may not make it.
    :raises OSError: when it cannot be made or opened for another reason.
    """
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=_MODE, parents=True)
    except OSError as error:
        if error.errno == errno.EACCES:
            raise UnfitDirectory(f"{directory} cannot be made by user {os.geteuid()}: {ANOTHER}") from None
        raise
    try:
        descriptor = open_directory(directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UnfitDirectory(f"{directory}: {_NO_DIRECTORY}") from None
        raise
    if (problem := trouble(directory, os.fstat(descriptor))) is not None:
        os.close(descriptor)
        raise UnfitDirectory(problem)
    return descriptor


def make_for(directory: Path, uid: int, gid: int) -> None:
    """Makes the directory for another user, as root.

    :raises OSError: when it cannot be made, or exists already.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=_MODE)
    os.chown(directory, uid, gid, follow_symlinks=False)


def open_directory(directory: Path) -> int:
    """Opens the directory. The path may end in a link of root or of this user, not of another one: systemd makes a link
    for a unit with DynamicUser=.

    :raises OSError: ELOOP or ENOTDIR for another user's link, and for a path that is no directory.
    """
    try:
        return os.open(directory, _DIRECTORY)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        found = directory.lstat()
        if not stat.S_ISLNK(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise
    return os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)


def trouble(directory: Path, found: os.stat_result) -> str | None:
    """Says why the directory cannot be this user's runtime directory; None if it can."""
    if not stat.S_ISDIR(found.st_mode):
        return f"{directory}: {_NO_DIRECTORY}"
    if found.st_uid != os.geteuid():
        return (
            f"{directory}: found a directory of user {found.st_uid}, allowed: one of our own (user {os.geteuid()}), "
            "since files of the host are made in it"
        )
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return f"{directory}: found mode {mode:04o}, which lets others write; allowed: chmod go-w {directory}"
    return None


def lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Locks a file or directory as long as the descriptor is open. Returns False if another process has the lock."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(directory: Path) -> bool:
    """Whether a host holds the directory.

    :raises OSError: when it cannot be opened, though it is there.
    """
    try:
        descriptor = open_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    with closing(descriptor):
        return not lock(descriptor, fcntl.LOCK_SH)


def holder(directory: Path) -> int:
    """Returns the pid that the host in this directory has written; 0 if there is none.

    :raises OSError: when the file may not be read.
    """
    try:
        text = read_file(directory, LOCK, 32).decode().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_PID else 0


def is_same(directory: Path, descriptor: int) -> bool:
    """Whether the path still leads to the directory of the descriptor."""
    try:
        found = directory.stat()
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


def put_aside(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Renames a file of another kind that has the path of ours. Returns whether ours is missing.

    :raises OSError: when it cannot be renamed.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return True
    if is_kind(mode):
        return False
    path.rename(path.with_name(f"{path.name}.foreign-{time.monotonic_ns()}"))
    return True


def open_file(directory: Path, name: str, flags: int) -> int:
    """Opens the regular file `name` in the directory. The file may not be a link.

    :raises OSError: ELOOP for a link; EPERM for a file that is not regular, or belongs neither to the directory's owner
        nor to this user; any error of open(2).
    """
    with closing(open_directory(directory)) as parent:
        try:
            descriptor = os.open(name, flags | _FILE, 0o600, dir_fd=parent)
        except OSError as error:
            error.filename = str(directory / name)  # open(2) got the name alone
            raise
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.fstat(parent).st_uid, os.geteuid()):
            os.close(descriptor)
            raise OSError(errno.EPERM, "no regular file of the directory's owner", str(directory / name))
        return descriptor


def read_file(directory: Path, name: str, limit: int = 16 << 20) -> bytes:
    """Reads at most `limit` bytes of a file. See `open_file` for what is raised."""
    with open(open_file(directory, name, os.O_RDONLY), "rb") as file:
        return file.read(limit)


def write_file(directory: Path, name: str, content: bytes) -> None:
    """Writes a file in place. See `open_file` for what is raised."""
    with open(open_file(directory, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(content)


def replace_file(directory: Path, name: str, content: bytes) -> None:
    """Writes a file anew, so that a reader sees the old one or the new one, whole."""
    new = f"{name}.new"
    with closing(open_directory(directory)) as parent:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=parent)  # left by a process that was killed, or put there by another
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        with open(os.open(new, flags, 0o600, dir_fd=parent), "wb") as file:
            file.write(content)
        os.rename(new, name, src_dir_fd=parent, dst_dir_fd=parent)


def take_first(directory: Path, suffix: str = "") -> int:
    """Locks the first file without a writer, or a new one, until this process ends, and returns its descriptor.

    For files that one process maps and writes, and every process reads. The lock is flock(2) and not a record lock: a
    process that reads all files reads its own too, and closing any descriptor of a file would drop its record locks. A
    child that a handler forks keeps the lock while it lives; the next writer makes another file then.

    :raises OSError: none is free, or the directory cannot be used.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    for number in range(_MOST_FILES):
        descriptor = open_file(directory, f"{number}{suffix}", os.O_RDWR | os.O_CREAT)
        if lock(descriptor):
            return descriptor
        os.close(descriptor)
    raise OSError(errno.EMFILE, "no file is free")


def map_file(descriptor: int, size: int) -> memoryview:
    """Maps `size` bytes of a file, and allocates them.

    :raises OSError: there is no room.
    """
    os.posix_fallocate(descriptor, 0, size)  # a full file system is an error here, and no SIGBUS later
    return memoryview(mmap.mmap(descriptor, size))


def contents(directory: Path, size: int) -> Iterator[bytes]:
    """Yields up to `size` bytes of each file in the directory that can be read."""
    for path in sorted(directory.glob("*")):
        with contextlib.suppress(OSError):
            yield read_file(directory, path.name, size)
