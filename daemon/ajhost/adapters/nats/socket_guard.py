"""Protects the number of a socket in a process that runs user code: notices when it is closed or reused.

A handler that closes a descriptor twice closes the file that has its number by then. A duplicate under another number
keeps the connection open.
"""

from __future__ import annotations

import os
import socket

from ajhost.adapters.linux.descriptors import far_duplicate, identity


class SocketGuard:
    """A socket, and a duplicate of it. `sock` is the present object for the first number."""

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
