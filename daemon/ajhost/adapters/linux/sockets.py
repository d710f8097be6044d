"""Non-blocking calls on sockets. Those that send and receive keep the interpreter's lock.

Python's own socket methods release it around every system call. While a handler computes in a thread, the loop then
waits a switch interval for it at least, after each call. A call that never blocks need not release it.
docs/performance.md has what that saves.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_LIBC = ctypes.PyDLL(None, use_errno=True)
_send, _recv = _LIBC.send, _LIBC.recv
# without `argtypes`, which would make an object of each argument
_send.restype = _recv.restype = ctypes.c_ssize_t
_pointer = ctypes.byref
_char_at = ctypes.c_char.from_buffer


def send(sock: socket.socket, data: bytes) -> int:
    """Passes `data` to the kernel, and returns how many bytes it took.

    :raises BlockingIOError: there is no room now. :raises OSError: as send(2) says.
    """
    sent: int = _send(sock.fileno(), data, len(data), _FLAGS)
    if sent < 0:
        raise _error()
    return sent


def is_readable(descriptor: int | socket.socket) -> bool:
    """Whether a read would return at once: data, the end, an error. A pidfd is readable once its process has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def receive(sock: socket.socket, space: memoryview) -> int:
    """Receives into `space`, which is not empty, and returns how many bytes; 0 at the end of the stream.

    :raises BlockingIOError: no data is there now. :raises OSError: as recv(2) says.
    """
    received: int = _recv(sock.fileno(), _pointer(_char_at(space)), len(space), _FLAGS)
    if received < 0:
        raise _error()
    return received


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
