"""Our socket's number in a process that runs foreign code: noticed when it is closed or reused, and given back.

A handler that closes a descriptor twice closes whatever has its number by then. A duplicate under another number keeps
the connection and what is in it.
"""

from __future__ import annotations

import os
import socket


class SocketGuard:
    """A socket, and a second number for it. `sock` is the present object for the first one."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._identity = _identity(sock.fileno())
        self._spare = os.dup(sock.fileno())

    @property
    def is_ours(self) -> bool:
        """Whether the number stands for our socket still."""
        return _identity(self.sock.fileno()) == self._identity

    def duplicate(self) -> int | None:
        """A new number for our socket; None when the second one was closed as well."""
        return os.dup(self._spare) if _identity(self._spare) == self._identity else None

    def replace(self, number: int) -> socket.socket:
        """Goes on under another number; the old one is somebody else's."""
        self.sock.detach()
        self.sock = socket.socket(fileno=number)
        self.sock.setblocking(False)
        return self.sock

    def close(self) -> None:
        """Closes both numbers, as far as they are ours."""
        if self.is_ours:
            self.sock.close()
        else:
            self.sock.detach()
        if _identity(self._spare) == self._identity:
            os.close(self._spare)
        self._spare = -1


def _identity(descriptor: int) -> tuple[int, int] | None:
    """What a descriptor stands for, None for nothing."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino
