"""Reads and writes the kernel's signal actions of this process, which Python's table of handlers does not fully show,
and resets signals that a launcher has ignored or blocked.

libuv installs its handler for SIGCHLD by sigaction(2) when the first sub-process starts, past Python (libuv 1.x,
src/unix/signal.c), and does so once only: if other code replaces it, the host has to put it back.
"""

from __future__ import annotations

import ctypes
import signal

_SIZE = 512
"""Bytes that hold a `struct sigaction` of any architecture (152 on x86-64)."""
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_libc = ctypes.CDLL(None, use_errno=True)

NOTHING = bytes(_POINTER)


def read(number: signal.Signals) -> bytes:
    """Returns the action of a signal, opaque except for `handler_of`."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if _libc.sigaction(int(number), None, buffer):
        raise OSError(ctypes.get_errno(), f"sigaction({number!r})")
    return buffer.raw


def write(number: signal.Signals, action: bytes) -> None:
    """Sets an action that `read` has returned."""
    if _libc.sigaction(int(number), ctypes.create_string_buffer(action, _SIZE), None):
        raise OSError(ctypes.get_errno(), f"sigaction({number!r})")


def handler_of(action: bytes) -> bytes:
    """Returns the address of its function, the first member on Linux; `NOTHING` for SIG_DFL."""
    return action[:_POINTER]


def reset_signals() -> None:
    """Unblocks every signal, and gives those below their default actions if a launcher has ignored them.

    With SIGCHLD ignored, waitid(2) does not return how a child has ended. A blocked SIGTERM stops nothing.
    """
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
