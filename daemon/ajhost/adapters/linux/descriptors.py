"""Keeps the host's descriptors from user code in the same process, which may close numbers that are not its own, and
notices when it has.

A handler that closes a descriptor twice closes the file that has its number by then, and the next file that is opened
gets the number. The host would read from that file, and write to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
from collections.abc import Iterator, Mapping, Sequence

_HIGHEST = 15_000
"""The kernel keeps a table with room for every number up to the highest in use: 8 bytes for each."""


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Closes the descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def far_duplicate(descriptor: int) -> int:
    """Returns a duplicate with a high number, which no other file gets: the kernel gives the lowest that is free.

    :raises OSError: there is none.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = _HIGHEST if soft == resource.RLIM_INFINITY else min(soft * 3 // 4, _HIGHEST)
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)


def moved_far(descriptor: int) -> int:
    """Moves a descriptor to a high number, and returns that; the same if no number is free."""
    try:
        number = far_duplicate(descriptor)
    except OSError:
        return descriptor
    os.close(descriptor)
    return number


def socket_moved_far(sock: socket.socket) -> socket.socket:
    """Returns a socket, non-blocking, whose descriptor has been moved to a high number."""
    moved = socket.socket(fileno=moved_far(sock.detach()))
    moved.setblocking(False)  # overrides socket.setdefaulttimeout of the application
    return moved


class OwnDescriptors:
    """The descriptors that a process cannot do without, by what they are."""

    def __init__(self, numbers: Mapping[str, Sequence[int]]) -> None:
        self._owned = [(what, number, identity(number)) for what, several in numbers.items() for number in several]

    def lost(self) -> str | None:
        """Returns what user code has closed, or replaced by another file."""
        return next((what for what, number, before in self._owned if identity(number) != before), None)


class SocketGuard:
    """A socket, and a duplicate of it that keeps its connection open. `sock`: the present object for its number."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._identity = identity(sock.fileno())
        self._spare = _duplicate(sock.fileno())

    @property
    def is_ours(self) -> bool:
        """Whether the number still belongs to this socket."""
        return identity(self.sock.fileno()) == self._identity

    def duplicate(self) -> int | None:
        """Returns a new number for the socket; None when the duplicate was closed as well."""
        return _duplicate(self._spare) if identity(self._spare) == self._identity else None

    def replace(self, number: int) -> socket.socket:
        """Continues under another number, since the old one belongs to another file by now."""
        self.sock.detach()
        self.sock = socket.socket(fileno=number)
        self.sock.setblocking(False)
        return self.sock

    def close(self) -> None:
        """Closes each of the two numbers that still belongs to this socket."""
        if self.is_ours:
            self.sock.close()
        else:
            self.sock.detach()
        if identity(self._spare) == self._identity:
            os.close(self._spare)
        self._spare = -1


def _duplicate(descriptor: int) -> int:
    try:
        return far_duplicate(descriptor)
    except OSError:
        return os.dup(descriptor)


def identity(descriptor: int) -> tuple[int, int] | None:
    """Returns the device and inode of a descriptor; None if it is not open."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino
