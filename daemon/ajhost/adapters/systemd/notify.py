"""What the supervisor tells systemd, and the sockets that systemd keeps for it: sd_notify(3), the FD store.

Messages go out on a socket of our own that never blocks: sd_notify(3) itself waits while PID 1 is busy (a
`daemon-reload` takes it a second), and would stop every worker's supervision with it. What PID 1 does not take at once
waits here, in order, and is offered again at the next call; the watchdog's pings, which come twice per interval, are
such calls.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from systemd import daemon

_VARIABLES = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "FDSTORE",
)


@dataclass(slots=True)
class _Message:
    """A datagram that waits. `kind`: a later one of the same kind, if any, stands in for it."""

    text: str
    kind: str | None
    descriptors: list[int] = field(default_factory=list)


class Notifier:
    """The one voice towards systemd; without systemd every call does nothing. Nothing here blocks or raises.

    Made once, at the start of the supervisor: it takes the variables of the service manager out of `os.environ`, so
    that no process that we start can speak in our name or answer for our watchdog.
    """

    def __init__(self) -> None:
        self._stored = [(name, fd) for fd, name in _inherited().items()]
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval = _watchdog_interval()
        for name in _VARIABLES:
            os.environ.pop(name, None)
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            )
        self._waiting: deque[_Message] = deque()
        self._pinged = 0.0

    # -- state ----------------------------------------------------------------------------------

    def ready(self, status: str) -> None:
        """The start, or a reload, is complete. The watchdog counts from the first one on."""
        self._send(f"READY=1\n{_status(status)}")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(_status(text), kind="status")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it, whatever was decided."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send(f"STOPPING=1\n{_status(status)}")

    def extend(self, seconds: float) -> None:
        """Asks for at least `seconds` more, from now, for the start, reload or stop that is going on."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(round(seconds * 1e6), 0)}", kind="extend")

    # -- watchdog -------------------------------------------------------------------------------

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds of silence after which systemd kills us; None if it does not watch."""
        return self._interval

    def watchdog(self) -> None:
        """We live. To be called often: sends a ping at most twice per interval, and what had to wait."""
        if self._waiting:
            self._flush()
        if self._interval is None:
            return
        now = time.monotonic()
        if now - self._pinged >= self._interval / 2:
            self._pinged = now
            self._send("WATCHDOG=1", kind="watchdog")

    # -- the FD store ---------------------------------------------------------------------------

    def stored(self) -> list[tuple[str, int]]:
        """Name and descriptor of what an earlier start gave to the store; close-on-exec, owned by the caller."""
        return list(self._stored)

    def store(self, name: str, fd: int) -> None:
        """Gives systemd a duplicate of `fd`; it outlives this process and comes back from `stored` of the next.

        With FDPOLL=0, because systemd would otherwise close a socket of its own accord once the peer has reset it, and
        the requests that were in it by then can still be read and run. So whatever is stored must be forgotten.
        """
        if self._socket is None:
            return
        try:
            duplicate = os.dup(fd)  # it may have to wait here, and `fd` is the caller's to close
        except OSError:
            return
        self._send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", descriptors=[duplicate])

    def forget(self, name: str) -> None:
        """Takes every descriptor of that name out of the store. An unknown name is none of systemd's business."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    # -- order ----------------------------------------------------------------------------------

    async def barrier(self, timeout: float) -> bool:
        """Waits until systemd has acted on everything sent before, at most `timeout` seconds; whether it has."""
        if self._socket is None:
            return True
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()
        # systemd closes its copy of the writing end when the message's turn comes: end of file at ours
        loop.add_reader(ours, closed.set)
        try:
            self._send("BARRIER=1", descriptors=[theirs])
            async with asyncio.timeout(timeout):
                while self._waiting:
                    await asyncio.sleep(0.01)
                    self._flush()
                await closed.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(ours)
            os.close(ours)
        return True

    def close(self) -> None:
        """Says nothing more."""
        for message in self._waiting:
            for descriptor in message.descriptors:
                os.close(descriptor)
        self._waiting.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- sending --------------------------------------------------------------------------------

    def _send(self, text: str, *, kind: str | None = None, descriptors: Sequence[int] = ()) -> None:
        if self._socket is None:
            return
        if kind is not None:
            for waiting in self._waiting:
                if waiting.kind == kind:
                    waiting.text = text
                    break
            else:
                self._waiting.append(_Message(text, kind))
        else:
            self._waiting.append(_Message(text, None, list(descriptors)))
        self._flush()

    def _flush(self) -> None:
        assert self._socket is not None
        while self._waiting:
            message = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.descriptors))]
            try:
                self._socket.sendmsg(
                    [message.text.encode()], rights if message.descriptors else [], 0, self._address
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                pass  # no systemd behind the address (any more): as without systemd
            self._waiting.popleft()
            for descriptor in message.descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())


def _inherited() -> dict[int, str]:
    """Descriptor to name of what systemd passed to this process, made close-on-exec."""
    try:
        found: dict[int, str] = daemon.listen_fds_with_names(unset_environment=False)
    except (OSError, ValueError):
        return {}
    return found


def _watchdog_interval() -> float | None:
    """sd_watchdog_enabled(3), for which systemd's binding has no function."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return interval if interval > 0 else None
