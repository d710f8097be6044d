"""Signal actions of the process as the kernel has them, where Python's table of handlers does not tell all of it.

libuv installs its handler for SIGCHLD with sigaction(2) when the first sub-process starts, past Python (libuv 1.x,
src/unix/signal.c), and installs it once only: what replaces it has to be undone here.
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
    """The action of a signal, opaque but for `handler_of`."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if _libc.sigaction(int(number), None, buffer):
        raise OSError(ctypes.get_errno(), f"sigaction({number!r})")
    return buffer.raw


def write(number: signal.Signals, action: bytes) -> None:
    """Puts back what `read` gave."""
    if _libc.sigaction(int(number), ctypes.create_string_buffer(action, _SIZE), None):
        raise OSError(ctypes.get_errno(), f"sigaction({number!r})")


def handler_of(action: bytes) -> bytes:
    """The address of the function, its first member on Linux; `NOTHING` for SIG_DFL."""
    return action[:_POINTER]


def reset_signals() -> None:
    """Gives every signal its default action and its way in: a launcher may have ignored or blocked it.

    With SIGCHLD ignored the kernel tells nobody how a child has ended. A blocked SIGTERM stops nothing.
    """
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
