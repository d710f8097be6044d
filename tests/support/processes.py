"""Processes as the kernel shows them: who there is, and waiting for one's end without a poll."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A living process: its id, its parent's, its title (or command line), when it started (clock ticks)."""

    pid: int
    parent: int
    title: str
    started: int


def info(pid: int) -> ProcessInfo | None:
    """What `/proc` says of `pid`; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return None if fields[0] in "ZX" else ProcessInfo(pid, int(fields[1]), title, int(fields[19]))


def thread_states(pid: int) -> set[str]:
    """The states of a process's threads, as proc(5) abbreviates them."""
    return {
        (thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in Path(f"/proc/{pid}/task").iterdir()
    }


def children(pid: int) -> list[ProcessInfo]:
    """The living children of `pid`, oldest first."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (thread / "children").read_text().split())
    found = [known for known in map(info, pids) if known is not None]
    return sorted(found, key=lambda process: (process.started, process.pid))


def with_working_directory(directory: Path) -> list[ProcessInfo]:
    """Every living process that works in `directory`: a mark that children inherit, whoever their parent is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if os.readlink(entry / "cwd") == str(directory):
                    found.append(info(int(entry.name)))
    return [process for process in found if process is not None]


async def gone(pid: int, timeout: float = 30.0) -> None:
    """Returns when `pid` has ended, at once if there is none. Raises TimeoutError."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(timeout):
            await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to one process, none if it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
