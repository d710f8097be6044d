"""Messages and file descriptors between two processes of a host, over `SOCK_SEQPACKET`: whole or not at all, in order.

A message is a JSON object (`roles/messages.py` has all of them). One that is longer than a datagram is sent as the
descriptor of a memory file, so the length of a spec or of a list of problems does not matter.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from ajhost.adapters.linux.descriptors import closing

_INLINE = 64 << 10
"""Messages of up to so many bytes go in one datagram."""
_LONGEST = 64 << 20
"""No message has more bytes: a larger number is damage."""
MAX_DESCRIPTORS = 200
"""Descriptors in one message; the kernel's limit is 253 (SCM_MAX_FD)."""
_CONTROL = socket.CMSG_SPACE((MAX_DESCRIPTORS + 1) * array.array("i").itemsize)
_SPILLED = b"\0"
"""Sent in place of a message whose text is in a memory file, the first of the descriptors."""
_FULL = {errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS}


class ChannelFull(Exception):
    """The peer does not read: the message was not sent, and may be sent later."""


class ChannelClosed(Exception):
    """The peer has closed its end, or has sent a datagram that is no message."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Makes two connected sockets, closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end of a channel. Owns its socket, which becomes non-blocking."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        """Returns the descriptor for a loop's reader; -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Closes this end. May be called again."""
        self._sock.close()

    def send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """Sends a message and duplicates of `descriptors`, of which at most `MAX_DESCRIPTORS`. Never blocks.

        :raises ChannelFull: the peer does not read. :raises ChannelClosed: it is gone.
        """
        if len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"{len(descriptors)} descriptors in one message")
        body = orjson.dumps(message)
        if len(body) <= _INLINE:
            self._send(body, descriptors)
            return
        with closing(_memory_file(body)) as spilled:
            self._send(_SPILLED, [spilled, *descriptors])

    def _send(self, body: bytes, descriptors: Sequence[int]) -> None:
        control = []
        if descriptors:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._sock.sendmsg([body], control, socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno in _FULL:
                raise ChannelFull(error.strerror) from error
            raise ChannelClosed(error.strerror) from error

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Returns the next message and its descriptors, closed on exec and now the caller's; None if there is none yet.

        A process that is out of descriptors gets the message without them.

        :raises ChannelClosed: the peer has closed its end, or died, and everything that it sent was received.
        """
        try:
            body, control, flags, _ = self._receive()
        except BlockingIOError:
            return None
        except OSError as error:
            raise ChannelClosed(error.strerror) from error
        descriptors = _descriptors(control)
        if not body:
            raise ChannelClosed("end of file")
        try:
            if flags & socket.MSG_CTRUNC:
                _close_all(descriptors)
            if body == _SPILLED:
                if not descriptors:
                    raise ValueError("a message was lost: too many open files")
                body = _read_memory_file(descriptors.pop(0))
            if flags & socket.MSG_TRUNC:
                raise ValueError("too long for a message")
            message = orjson.loads(body)
            if not isinstance(message, dict):
                raise ValueError("not an object")
        except (ValueError, OSError) as error:
            _close_all(descriptors)
            raise ChannelClosed(f"what came is no message: {error}") from error
        return message, descriptors

    def received(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Yields each message that has come by now. :raises ChannelClosed: as `receive`."""
        while (received := self.receive()) is not None:
            yield received

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        try:
            return self._sock.recvmsg(_INLINE, _CONTROL, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # The peer ended with unread messages. The kernel reports that once, and BEFORE the messages of the peer.
            return self._sock.recvmsg(_INLINE, _CONTROL, socket.MSG_CMSG_CLOEXEC)

    def receive_wait(self, timeout: float | None) -> tuple[dict[str, Any], list[int]] | None:
        """Waits up to `timeout` seconds, without a limit if None, for a message; otherwise as `receive`."""
        limit = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while (received := self.receive()) is None:
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return None
            poll.poll(None if left is None else left * 1000)
        return received


def _descriptors(control: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _memory_file(body: bytes) -> int:
    descriptor = os.memfd_create("ajhost-message", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(body)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _read_memory_file(descriptor: int) -> bytes:
    with open(descriptor, "rb", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        if size > _LONGEST:
            raise ValueError(f"{size} bytes are too long for a message")
        file.seek(0)
        return file.read(size)
