"""Sets keepalive and `TCP_USER_TIMEOUT`, and asks the kernel how many bytes a process has received from a connection.

`tcpi_bytes_received - FIONREAD` is what recv(2) has returned. It finds the bytes that a dead worker received and could
not record before its SIGKILL. `tests/adapters/linux/test_tcp.py` compares it with what was read.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import socket
import struct
import termios

from ajhost.core.timings import TCP_PROBE_AFTER, TCP_PROBE_INTERVAL, TCP_UNACKNOWLEDGED_LIMIT

_BYTES_RECEIVED_AT = 128
"""Offset of `tcpi_bytes_received` in `struct tcp_info` (linux/tcp.h)."""
_TCP_INFO_SIZE = 232
_ESTABLISHED = 1
_PROBES = 5
"""How many probes the peer may leave unanswered."""
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(TCP_PROBE_AFTER)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(TCP_PROBE_INTERVAL)),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(TCP_UNACKNOWLEDGED_LIMIT * 1000)),
)
_RECEIVED_FIN = {8, 9, 11}
"""CLOSE_WAIT, LAST_ACK, CLOSING (`net/tcp_states.h`): the peer sent its FIN, which the kernel counts as one byte."""
_CLOSE = 7
"""TCP_CLOSE. The kernel has counted a FIN, unless a reset ended the connection without one: ECONNRESET (tcp_reset)."""


def require() -> None:
    """Tries the system call that recovery makes for each connection.

    :raises OSError: when a sandbox refuses it, so that recovery could not find what dead workers had received.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0) as sock:
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)


def tune(sock: socket.socket) -> None:
    """Sets a socket to send without delay, since replies are small, and to notice a peer that is gone.

    The connection's own PING notices it sooner, but only while its process runs and reads. Where a sandbox refuses one
    of these options, the connection goes without it.
    """
    for level, option, value in _OPTIONS:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)


def bytes_taken(sock: socket.socket) -> int:
    """Returns how many bytes of the stream have left the kernel's receive queue since the connection began.

    The kernel counts the peer's FIN as one byte, which is subtracted.
    """
    while True:
        before = unread(sock)
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (received,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)
        if unread(sock) == before:
            return int(received) - _fin(sock, info[0]) - before


def is_whole(sock: socket.socket) -> bool:
    """Whether neither end has ended or reset the connection, as far as this kernel knows."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def _fin(sock: socket.socket, state: int) -> int:
    if state != _CLOSE:
        return 1 if state in _RECEIVED_FIN else 0
    # the kernel returns the error once. Asked again, a reset counts as a FIN: one byte too few, and never one too many
    return 0 if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET else 1


def unread(sock: socket.socket) -> int:
    """Returns how many bytes are in the kernel's receive queue."""
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return count[0]


def end_sending(sock: socket.socket) -> None:
    """Ends this side of the connection: the server flushes what it has for it, and closes. Never raises."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
