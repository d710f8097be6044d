"""What a service manager sees: a `$NOTIFY_SOCKET` that records each message with its time and its sender."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Notification:
    """One datagram: when (monotonic seconds), from which process, its assignments, how many descriptors came along."""

    at: float
    pid: int
    fields: dict[str, str]
    descriptors: int


class NotifySocket:
    """The receiving end. Descriptors that are handed over are counted and `_keep` decides about them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: list[Notification] = []
        self._waiting: list[tuple[Callable[[Notification], bool], asyncio.Future[Notification]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def _receive(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, 4096, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            pid, handed = 0, array.array("i")
            for _, kind, value in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    pid = _CREDENTIALS.unpack(value)[0]
                elif kind == socket.SCM_RIGHTS:
                    handed.frombytes(value[: len(value) - len(value) % handed.itemsize])
            lines = (line.partition("=") for line in data.decode().splitlines())
            notification = Notification(time.monotonic(), pid, {key: value for key, _, value in lines}, len(handed))
            self._keep(notification, list(handed))
            self._record(notification)

    def _keep(self, notification: Notification, handed: list[int]) -> None:
        """Takes the descriptors of a message; here they are closed, as by a manager without a store."""
        for descriptor in handed:
            os.close(descriptor)

    def _record(self, notification: Notification) -> None:
        self.received.append(notification)
        for wanted, future in self._waiting[:]:
            if not future.done() and wanted(notification):
                future.set_result(notification)

    def having(self, key: str) -> list[Notification]:
        """Those that assign `key`, in the order of their arrival."""
        return [notification for notification in self.received if key in notification.fields]

    async def next(self, key: str, value: str | None = None, *, since: int = 0, timeout: float = 60.0) -> Notification:
        """The first one that says `key=value` (any value if None), of those after the first `since`.

        Raises TimeoutError.
        """

        def wanted(notification: Notification) -> bool:
            return key in notification.fields and value in (None, notification.fields[key])

        for notification in self.received[since:]:
            if wanted(notification):
                return notification
        found: asyncio.Future[Notification] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter := (wanted, found))
        try:
            async with asyncio.timeout(timeout):
                return await found
        finally:
            self._waiting.remove(waiter)

    def close(self) -> None:
        """Stops listening."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self.path.unlink(missing_ok=True)
