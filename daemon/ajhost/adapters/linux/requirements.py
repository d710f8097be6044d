"""Checks what a host needs of the machine before anything is started: open files, a /proc of its own, a tmpfs."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_MANY_FILES = 1 << 16
"""The same as LimitNOFILE= of the package's unit."""
_FILES_OF_HOST, _FILES_OF_WORKER = 36, 7


def raise_file_limit() -> None:
    """Lets this process and its children open as many files as the hard limit allows (getrlimit(2), RLIMIT_NOFILE).

    The soft limit is 1,024 almost everywhere, for programs that call select(2); 200 workers need more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and (hard == resource.RLIM_INFINITY or soft < hard):
        with contextlib.suppress(OSError, ValueError):
            wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def lacking_files(workers: int) -> str | None:
    """Says why this process may not open as many files as a supervisor of so many workers needs; None if it may.

    In a reload it needs the most: for each worker a channel, a pidfd, a ledger and its mapping, and two sockets.
    """
    needed = _FILES_OF_HOST + _FILES_OF_WORKER * workers
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return None
    limit = f"this process may have {hard} (ulimit -Hn, LimitNOFILE=)"
    return f"workers.count: {workers} workers need {needed} open files, and {limit}"


def lacking_proc() -> str | None:
    """Says why /proc does not show this process, which a host's look-ups of processes need; None if it does."""
    try:
        shown = os.readlink("/proc/self")
    except OSError:
        found = "no file system of processes"
    else:
        if shown == str(os.getpid()):
            return None
        found = "that of another PID namespace"
    return f"/proc: found {found}, allowed: our own (mount -t proc proc /proc, unshare --mount-proc)"


def on_tmpfs(directory: Path) -> bool:
    """Whether the directory is in memory: on a disk each page that is written costs I/O."""
    device = os.stat(directory).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        mounts = [line.partition(" - ") for line in lines]
    return any(left.split()[2] == number and right.split()[0] in ("tmpfs", "ramfs") for left, _, right in mounts)
