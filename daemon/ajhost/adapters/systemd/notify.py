"""The supervisor's notifications to systemd (ready, status, watchdog, more time) and systemd's file descriptor store:
sd_notify(3). Says what the unit lacks. `roles/supervisor/shutdown.py` decides how much time a stop asks for.

Messages are sent on a non-blocking socket. libsystemd's sd_notify blocks while PID 1 is busy (a `daemon-reload` takes a
second), and the supervisor would supervise nothing meanwhile. A message that does not fit into the socket is queued,
and sent in order at a later call; `watchdog` is called at least twice per interval.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from systemd import daemon

from ajhost.core.timings import WATCHDOG_LEAST

_VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE",
)  # fmt: skip


@dataclass(slots=True)
class _Message:
    """A queued datagram. A later message of the same `kind`, if that is not None, replaces it."""

    text: str
    kind: str | None
    descriptors: list[int] = field(default_factory=list)


class Notifier:
    """Sends notifications to systemd. Without systemd every call does nothing. No method blocks or raises.

    The supervisor makes one at its start. It removes the service manager's variables from `os.environ`, so that no
    child process sends notifications in the supervisor's name.
    """

    def __init__(self) -> None:
        self._stored = [(name, fd) for fd, name in _inherited().items()]
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval = _watchdog_interval()
        self._mute = not address and os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
        for name in _VARIABLES:
            os.environ.pop(name, None)
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._waiting: deque[_Message] = deque()
        self._pinged = 0.0

    # -- state ----------------------------------------------------------------------------------

    def ready(self, status: str) -> None:
        """Ends the start or a reload: READY=1. systemd's watchdog counts from the first one on."""
        self._send(f"READY=1\n{_status(status)}")

    def status(self, text: str) -> None:
        """Sets the line that `systemctl status` shows: STATUS=."""
        self._send(_status(text), kind="status")

    def reloading(self) -> None:
        """Begins a reload: RELOADING=1. `ready` ends it, taken or rejected."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Begins the stop: STOPPING=1."""
        self._send(f"STOPPING=1\n{_status(status)}")

    def extend(self, seconds: float) -> None:
        """Extends systemd's timeout of the present start, reload or stop to at least `seconds` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(round(seconds * 1e6), 0)}", kind="extend")

    def unit_problems(self) -> list[str]:
        """Says what the unit that started this process lacks, as far as this process can see it."""
        problems = []
        if self._mute:
            problems.append(
                "the unit has no Type=notify: systemd knows neither when this host is ready nor whether it lives, and "
                "keeps no connections over a crash"
            )
        if self._interval is not None and self._interval < WATCHDOG_LEAST:
            problems.append(
                f"the unit's WatchdogSec={self._interval:g}s is less than {WATCHDOG_LEAST:g}s: systemd kills a host "
                "that had no CPU for so long"
            )
        return problems

    # -- watchdog -------------------------------------------------------------------------------

    def watchdog(self) -> None:
        """Sends queued messages, and a watchdog ping if half of the interval has passed. To be called often."""
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
        """Returns names and descriptors that earlier starts have stored; close-on-exec. The caller closes them."""
        return list(self._stored)

    def store(self, name: str, fd: int) -> None:
        """Stores a duplicate of `fd` in systemd, from which the next start gets it by `stored`.

        FDPOLL=0: otherwise systemd closes a socket once its peer has reset it, with requests that can still be read and
        run. Every stored descriptor must therefore be removed by `forget`.
        """
        if self._socket is None:
            return
        try:
            duplicate = os.dup(fd)  # the message may be queued, and the caller may close `fd` meanwhile
        except OSError:
            return
        self._send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", descriptors=[duplicate])

    def forget(self, name: str) -> None:
        """Removes every descriptor of that name from the store. systemd ignores an unknown name."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def close(self) -> None:
        """Closes the socket; queued messages are dropped."""
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
        for waiting in self._waiting:
            if kind is not None and waiting.kind == kind:
                waiting.text = text
                break
        else:
            self._waiting.append(_Message(text, kind, list(descriptors)))
        self._flush()

    def _flush(self) -> None:
        assert self._socket is not None
        while self._waiting:
            message = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", message.descriptors))]
            try:
                self._socket.sendmsg([message.text.encode()], rights if message.descriptors else [], 0, self._address)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                pass  # no process listens at the address: as without systemd
            self._waiting.popleft()
            for descriptor in message.descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())


def _inherited() -> dict[int, str]:
    """Returns the descriptors that systemd passed to this process (LISTEN_FDS), made close-on-exec, and their names."""
    try:
        found: dict[int, str] = daemon.listen_fds_with_names(unset_environment=False)
    except (OSError, ValueError):
        return {}
    return found


def _watchdog_interval() -> float | None:
    """Returns the watchdog's interval in seconds, or None: sd_watchdog_enabled(3), which the Python binding lacks."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return interval if interval > 0 else None
