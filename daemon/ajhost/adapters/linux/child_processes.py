"""The children of this process: which there are, those that a dead worker has left, and pidfds of children."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

from ajhost.adapters.linux.processes import mark_of, state_of
from ajhost.core.timings import STRAY_HUNT


class ChildReaper:
    """Ends and reaps what a subreaper inherits from dead workers: children of handlers, which no process waits for.

    The kernel makes them children of this process when their parent dies, in whatever session or process group they
    are; each bears the mark of its worker, or of its generation if an import started it (`processes.mark`). One without
    a mark that was there before a worker's death is left alone: another process may have started it in this container.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._strays: set[int] = set()
        self._spared: set[int] = set()
        self._hunts_until = 0.0

    def reap(self, known: Container[int], living_marks: Container[int] = ()) -> None:
        """Reaps each child that was dead at the last call already and is not `known`. Call it about once a second.

        Ends those whose mark is none of `living_marks`: what the template of a rejected reload had started.

        A worker that died before its pidfd was received looks the same for a moment.
        """
        unknown = {pid: state_of(pid) for pid in children() if pid not in known}
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
        """Whether a worker has died a moment ago."""
        return time.monotonic() < self._hunts_until

    def hunt(self) -> None:
        """A worker has died: for a moment from now on `end_strays` ends what it has left."""
        self._hunts_until = time.monotonic() + STRAY_HUNT

    def end_strays(self, known: Container[int], living_marks: Container[int]) -> set[int]:
        """Sends SIGKILL to each living child that is not `known` and was there at the last call. Returns their pids.

        Spares those that bear one of `living_marks`. Call it at every tick while `hunting`. A worker is a
        child for a moment before its pidfd is received.
        """
        if not self.hunting:
            self._strays.clear()
            return set()
        unknown = {pid for pid in children() if pid not in known}
        living = {pid for pid in unknown if state_of(pid) not in ("Z", "X", "")}
        for pid in tuple(living):
            mark = mark_of(pid)
            if pid in self._spared if mark is None else mark in living_marks:
                living.discard(pid)
        ended = living & self._strays
        for pid in ended:
            _kill(pid)
        if ended:
            self.hunt()  # their own children become this process's next
        self._strays = living
        return ended


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def children() -> set[int]:
    """The children of this process, those that are dead and not reaped included."""
    return children_of(os.getpid())


def children_of(pid: int) -> set[int]:
    """As `children`, of another process; none of one that is gone."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # a thread, or the process, has just ended
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found.update(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def pidfd_of_child(pid: int) -> int | None:
    """A pidfd of a child: the kernel drops one that is received while this process has no free descriptor.

    None when there is no such child, or still no free descriptor. The child is killed then, since its death would not
    be noticed.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # a child's pid is not reused
        return os.pidfd_open(pid)
    except ChildProcessError:
        return None
    except OSError:
        os.kill(pid, signal.SIGKILL)
        return None
