"""Namespaces, mounts, parent death signals and process start times: what the standard library does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x20000000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LabError(Exception):
    """The lab cannot do what was asked; the text says why."""


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_private_mounts() -> None:
    """Moves this process into a mount namespace whose mounts nobody else sees."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "make / private")


def enter_namespaces(pidfd: int, flags: int) -> None:
    """Joins namespaces of another process (setns(2) takes a pidfd since Linux 5.8)."""
    _check(_libc.setns(pidfd, flags), "setns")


def die_with_parent() -> None:
    """The kernel kills this process when its parent dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def mount(*arguments: str) -> None:
    """Runs mount(8)."""
    subprocess.run(["/bin/mount", *arguments], check=True)


def start_time(pid: int) -> int | None:
    """The start of a process in clock ticks; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


@contextlib.contextmanager
def stop_signals_raise() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `LabError` inside, and are ignored while the caller cleans up after it."""

    def stop(number: int, _: object) -> None:
        raise LabError(f"interrupted by {signal.Signals(number).name}")

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        ignore_stop_signals()


def ignore_stop_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP do nothing."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def default_stop_signals() -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end this process."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def complain(text: str) -> None:
    """Writes a line to stderr without any buffer: safe between fork and exec."""
    os.write(2, f"systemd-lab: {text}\n".encode())
