"""Ends processes that dead workers and rejected imports have started: each has a mark, and no parent waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Container

from ajhost.adapters.linux import proc
from ajhost.core.timings import CHECK_INTERVAL, STRAY_HUNT

_log = logging.getLogger("ajhost.supervisor")
_MARK = 1 << 62
GENERATION_MARK = 1 << 61
"""Added to the number of a generation: the mark of its template, and of processes that its imports start."""


def mark(number: int) -> None:
    """Marks this process and its future descendants with the number of a worker; `mark_of` reads it.

    A template's is its generation plus `GENERATION_MARK`, larger than any worker's: a limit can only be lowered.

    The mark is a limit without effect: RLIMIT_RTTIME concerns real-time scheduling only, and this is 146,000 years. It
    is one of the few attributes that a process inherits through fork, exec and setsid, and that other processes can
    read. Where a limit is set already, or may not be set, there is no mark.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (_MARK + number, _MARK + number))


def mark_of(pid: int) -> int | None:
    """Returns the number that `mark` gave to a process or an ancestor of it; None if it has none, or is gone."""
    soft = proc.field(f"{pid}/limits", r"Max realtime timeout\s+(\d+)\s")
    return int(soft) - _MARK if int(soft or 0) > _MARK else None


class StrayProcesses:
    """Ends and reaps the processes that a subreaper inherits from dead workers and templates.

    Handlers and imports have started them. The kernel makes them children of this process when their parent dies, in
    whatever session or process group they are. Each has the mark of its worker, or of its generation if an import
    started it. A child without a mark that this process had before a worker's death is spared: another process may have
    started it in this container.

    `known()` returns the pids that this process reaps elsewhere, and the marks of processes that are to live.
    """

    def __init__(self, known: Callable[[], tuple[Container[int], Container[int]]] = lambda: ((), ())) -> None:
        self._known = known
        self._seen: set[int] = set()
        self._strays: set[int] = set()
        self._spared: set[int] = set()
        self._hunts_until = 0.0

    def reap(self) -> None:
        """Reaps each child that was dead at the last call already and is not known. Call it about once a second.

        It waits for a second call since a worker that died before its pidfd was received looks the same for a moment.
        Kills living children whose mark is none of those that are to live: the template of a rejected reload had
        started them.
        """
        known, living_marks = self._known()
        unknown = {pid: proc.state_of(pid) for pid in proc.children() if pid not in known}
        dead = {pid for pid, state in unknown.items() if state == "Z"}
        for pid in dead & self._seen:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        self._seen = dead - self._seen
        for pid in unknown.keys() - dead:
            if (mark := mark_of(pid)) is not None and mark not in living_marks:
                _kill(pid)
        if not self.hunting:
            self._spared = unknown.keys() - dead

    @property
    def hunting(self) -> bool:
        """Whether a worker or template, or a process ended by `end`, has died within the last `STRAY_HUNT` seconds."""
        return time.monotonic() < self._hunts_until

    def hunt(self) -> None:
        """Has `end` look for what a worker or template that has just died left, for `STRAY_HUNT` seconds from now."""
        self._hunts_until = time.monotonic() + STRAY_HUNT

    def end(self) -> bool:
        """Sends SIGKILL to each living child that is not known and was there at the last call. Call it at every tick.

        Spares those with a mark of processes that are to live. It waits for a second call since a new worker is a child
        for a moment before its pidfd is received. Returns whether it looks for more.
        """
        if not self.hunting:
            self._strays.clear()
            return False
        known, living_marks = self._known()
        unknown = {pid for pid in proc.children() if pid not in known}
        living = {pid for pid in unknown if not proc.is_dead(pid)}
        for pid in tuple(living):
            mark = mark_of(pid)
            if pid in self._spared if mark is None else mark in living_marks:
                living.discard(pid)
        ended = living & self._strays
        for pid in ended:
            _kill(pid)
        if ended:
            _log.warning("%d processes that a dead worker had left: SIGKILL", len(ended))
            self.hunt()  # the kernel makes their children this process's own
        self._strays = living
        return self.hunting

    async def end_all(self) -> None:
        """Ends all that workers and templates left: the host stops. Returns when nothing is left that can be ended."""
        self.hunt()
        while self.end() and proc.children():
            await asyncio.sleep(CHECK_INTERVAL)
            self.reap()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
