"""Makes, preallocates, maps, locks and removes ledger files, restores one that was truncated, and renames one that is
none. The only module that opens them.

A file is preallocated, so that a full runtime directory is an `OSError` (ENOSPC) at once and never a SIGBUS later. If
another program truncates a file, an access beyond its new end is a SIGBUS (mmap(2)). A supervisor therefore checks the
size before each access (`GuardedLedger`); a worker dies of it and is replaced. A file's owner holds a POSIX record lock
on it, which a fork does not inherit: a file without a lock has no living owner.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import weakref
from pathlib import Path

from ajhost.adapters.linux import runtime_directory
from ajhost.adapters.linux.descriptors import closing
from ajhost.ledger.layout import Geometry, Identity, LedgerError, create
from ajhost.ledger.view import Ledger
from ajhost.ledger.writer import LedgerWriter

_SUFFIX = ".ledger"
_UNFINISHED = ".unfinished"
_FLOCK = struct.Struct("hhqqi4x")


def path_of(directory: Path, serial: int) -> Path:
    """Returns the path of a process's ledger."""
    return directory / f"{serial}{_SUFFIX}"


def serials(directory: Path) -> list[int]:
    """Returns the serials of all ledger files there, oldest first. Links, pipes and directories are not ledgers."""
    found = (path for path in directory.glob(f"*{_SUFFIX}") if path.stem.isascii() and path.stem.isdecimal())
    return sorted(int(path.stem) for path in found if not path.is_symlink() and path.is_file())


def clear_unfinished(directory: Path) -> None:
    """Removes files that a supervisor was making when it was killed; no process has used them."""
    for path in directory.glob(f"*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def make(directory: Path, geometry: Geometry, identity: Identity) -> None:
    """Makes and preallocates a ledger file.

    :raises OSError: ENOSPC when the directory has no room for it; nothing is left behind.
    """
    path = path_of(directory, identity.serial)
    unfinished = path.with_suffix(_UNFINISHED)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, geometry.size)
        _fill(descriptor, geometry, path)
        with mmap.mmap(descriptor, geometry.size) as mapping, memoryview(mapping) as view:
            create(view, geometry, identity)
        os.link(unfinished, path)  # unlike a rename it replaces no file
    finally:
        unfinished.unlink(missing_ok=True)
        os.close(descriptor)


def _fill(descriptor: int, geometry: Geometry, path: Path) -> None:
    try:
        for offset, size in geometry.prepared:
            os.posix_fallocate(descriptor, offset, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        size = geometry.prepared_size
        room = os.fstatvfs(descriptor)
        free = room.f_bavail * room.f_frsize
        text = (
            f"a ledger takes {size / (1 << 20):.1f} MiB and {free / (1 << 20):.1f} are free: make that file system "
            "larger, or workers.count, workers.backlog or workers.concurrency smaller"
        )
        raise OSError(errno.ENOSPC, f"no space left: {text}", str(path)) from None


class _InFile(Ledger):
    """A ledger whose file this process has open and mapped."""

    __slots__ = ()
    _descriptor: int
    _mapping: mmap.mmap

    def set_aside(self, offset: int, size: int) -> bool:
        try:
            os.posix_fallocate(self._descriptor, offset, size)
        except OSError:
            return False
        return True

    def give_back(self, offset: int, size: int) -> None:
        """Punches a hole (madvise(2), MADV_REMOVE). A file system that cannot do so keeps the pages."""
        end = (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        begin = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        if begin < end:
            with contextlib.suppress(OSError):
                self._mapping.madvise(mmap.MADV_REMOVE, begin, end - begin)

    def restore_size(self) -> bool:
        return self._restore(len(self.view))

    def _restore(self, size: int) -> bool:
        if os.lseek(self._descriptor, 0, os.SEEK_END) >= size:
            return False
        os.ftruncate(self._descriptor, size)
        self.set_aside(0, self.chunk_at + self.chunk_prepared)
        self.restore_header()
        return True


class MappedLedger(_InFile):
    """Another process's ledger, mapped; not `writable` for a process that only reads it.

    :raises OSError: when there is no such file. :raises LedgerError: when it is no ledger of this layout.
    """

    __slots__ = ("__weakref__", "_close_file", "_descriptor", "_mapping", "_path")

    def __init__(self, directory: Path, serial: int, *, writable: bool = True) -> None:
        self._path = path_of(directory, serial)
        self._descriptor = _open(directory, serial, os.O_RDWR if writable else os.O_RDONLY)
        self._close_file = weakref.finalize(self, os.close, self._descriptor)
        self._mapping = _map(self._descriptor, writable=writable)
        try:
            super().__init__(memoryview(self._mapping))
        except LedgerError:
            with contextlib.suppress(BufferError):
                self._mapping.close()
            self._close_file()
            raise

    @property
    def in_place(self) -> bool:
        """Whether its path leads to the mapped file, which has not been removed or replaced."""
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        super().close()
        with contextlib.suppress(BufferError):
            self._mapping.close()
        self._close_file()


class GuardedLedger(MappedLedger):
    """Another process's ledger, for the supervisor, which must survive a truncation of the file.

    Before each access it restores the file's size if need be. That takes 0.3 us, which workers save.
    """

    __slots__ = ("_truncated", "_view", "_words")

    def __init__(self, directory: Path, serial: int) -> None:
        self._truncated = False
        super().__init__(directory, serial)

    @property
    def view(self) -> memoryview:
        """The whole file, as bytes."""
        self._guard()
        return self._view

    @view.setter
    def view(self, view: memoryview) -> None:
        self._view = view

    @property
    def words(self) -> memoryview[int]:
        """The whole file, as words."""
        self._guard()
        return self._words

    @words.setter
    def words(self, words: memoryview[int]) -> None:
        self._words = words

    def _guard(self) -> None:
        if self._restore(len(self._view)):
            self._truncated = True

    def restore_size(self) -> bool:
        """See `Ledger.restore_size`. Returns whether the file was truncated since the last call."""
        self._guard()
        truncated, self._truncated = self._truncated, False
        return truncated


class LockedLedger(_InFile, LedgerWriter):
    """This process's own ledger: mapped and locked for as long as the process lives."""

    __slots__ = ("_descriptor", "_mapping")

    def __init__(self, directory: Path, serial: int) -> None:
        # never closed: closing any descriptor of the file would drop the record lock
        self._descriptor = _open(directory, serial)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
        self._mapping = _map(self._descriptor)
        super().__init__(memoryview(self._mapping))

    @property
    def place(self) -> str:
        """A path by which this user's processes can open it, even when its own path is gone (proc(5), /proc/pid/fd)."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"


_elsewhere: dict[int, str] = {}


def also_at(serial: int, place: str) -> None:
    """Has a ledger opened at `place` from now on, whatever its own path leads to: `LockedLedger.place` of its owner."""
    _elsewhere[serial] = place


def _open(directory: Path, serial: int, flags: int = os.O_RDWR) -> int:
    if serial in _elsewhere:
        with contextlib.suppress(OSError):
            return os.open(_elsewhere[serial], flags | os.O_CLOEXEC)
    return runtime_directory.open_file(directory, path_of(directory, serial).name, flags)


def _map(descriptor: int, *, writable: bool = True) -> mmap.mmap:
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise LedgerError("an empty file")
    return mmap.mmap(descriptor, size, access=mmap.ACCESS_DEFAULT if writable else mmap.ACCESS_READ)


def locked_by(directory: Path, serial: int) -> int | None:
    """Returns the pid of the living process that owns the file; None when there is none."""
    with closing(_open(directory, serial, os.O_RDONLY)) as descriptor:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else pid


def remove(directory: Path, serial: int) -> None:
    """Removes a ledger file; tokens that still name it are stale. A directory in its place stays."""
    with contextlib.suppress(IsADirectoryError):
        path_of(directory, serial).unlink(missing_ok=True)


def quarantine(directory: Path, serial: int) -> Path:
    """Renames a file that is no ledger of this layout, so that no start reads it again, but an operator can."""
    path = path_of(directory, serial)
    aside = path.with_suffix(".foreign")
    path.rename(aside)
    return aside
