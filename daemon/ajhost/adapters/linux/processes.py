"""Operations on processes: signal, stop, resume and reap them, and say how one ended (`SIGSEGV (core dumped)`, `exit
status 3`); duplicate their descriptors, adopt orphans, set their priority.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ajhost.adapters.linux import proc
from ajhost.adapters.linux.sockets import is_readable
from ajhost.core.timings import STOP_POLL

STACKS_OF_IMPORTS = int(signal.SIGRTMAX) - 2
"""The signal that asks a process that imports handlers for its stacks: one that libraries do not use."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
_PIDFD_GETFD = 438
"""pidfd_getfd(2), the same number on every architecture (asm-generic/unistd.h); glibc has it since 2.36."""
_OOM_MAX = 1000
_STILL, _IN_THE_KERNEL = frozenset("TZX"), frozenset("D")
"""Letters of proc(5) for threads: stopped, or ended while other threads live; waiting uninterruptibly."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by a signal or with an exit status; neither if another process reaped it.

    `core`: it left a core dump.
    """

    signal: int | None
    code: int | None
    core: bool

    @property
    def text(self) -> str:
        """`SIGKILL`, `SIGSEGV (core dumped)`, `exit status 3`, `unknown`."""
        if self.signal is None:
            if self.code is None:
                return "unknown"
            return f"exit status {self.code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:  # most real-time signals have no name
            name = f"signal {self.signal}"
        return f"{name} (core dumped)" if self.core else name


class StopResult(Enum):
    STOPPED = auto()
    """This call stopped it, every thread of it."""
    ALREADY_STOPPED = auto()
    """Another process had stopped it, and may resume it at any moment."""
    GONE = auto()
    """It has ended."""
    TIMEOUT = auto()
    """It did not stop in time, and was resumed."""


def become_subreaper() -> None:
    """Makes orphaned descendants this process's own children, so that it learns how they ended.

    :raises OSError: when the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def allow_inspection() -> None:
    """Lets other processes of the same user look at this one in /proc, and duplicate its descriptors.

    :raises OSError: when the kernel refuses.
    """
    _prctl(_PR_SET_DUMPABLE, 1)


def die_with_parent(parent: int) -> None:
    """SIGKILLs this process when the thread that started it ends; at once if `parent` is gone already.

    A child that is forked later does not inherit it (prctl(2)). :raises OSError: when the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """Returns `command` such that it is SIGKILLed when the thread that starts it ends; unchanged without setpriv(1).

    setpriv asks the kernel for that, so that no code of ours runs between fork and exec.
    """
    setpriv = shutil.which("setpriv")
    return [*command] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--", *command]


def resume_on_parent_death() -> None:
    """Has the kernel resume this process, if it is stopped, when its parent ends: the supervisor may have stopped it.

    :raises OSError: when the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def wait_status(pidfd: int) -> ExitStatus | None:
    """Reaps a child and returns how it ended.

    Returns None when it runs, or is not this process's child yet: a worker may die before the intermediate process of
    the template's double fork. If the pidfd is readable and this returns None, call it again.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        try:
            _send(pidfd, 0)  # reaches a dead process as long as it is not reaped
        except ProcessLookupError:
            return ExitStatus(None, None, False)
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(None, result.si_status, False)
    return ExitStatus(result.si_status, None, result.si_code == os.CLD_DUMPED)


def pidfd_signal(pidfd: int, number: signal.Signals) -> None:
    """Sends a signal; does nothing when the process has ended.

    :raises OSError: when the kernel refuses.
    """
    with contextlib.suppress(ProcessLookupError):
        _send(pidfd, number)


def _send(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise
    except OSError:
        # A system call filter may forbid pidfd_send_signal(2) and allow kill(2). The kernel does not give a child's pid
        # to another process until this one has reaped it.
        os.kill(_pid_of(pidfd), number)


def _pid_of(pidfd: int) -> int:
    """Returns the pid of a pidfd's process. :raises ProcessLookupError: when it was reaped."""
    if pid := int(proc.field(f"self/fdinfo/{pidfd}", r"Pid:\s*(\d+)") or 0):  # -1 when it was reaped
        return pid
    raise ProcessLookupError


def pidfd_of_child(pid: int) -> int | None:
    """Opens a pidfd of a child: the kernel drops one that is received while this process has no free descriptor.

    Returns None when there is no such child, or still no free descriptor. It kills the child in that case, whose death
    would not be noticed.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # a child's pid is not reused
        return os.pidfd_open(pid)
    except ChildProcessError:
        return None
    except OSError:
        os.kill(pid, signal.SIGKILL)
        return None


def kill_session(pid: int, number: signal.Signals) -> None:
    """Sends a signal to the process group of a session leader, dead or not.

    A child that made a process group of its own is not reached.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def has_ended(pidfd: int) -> bool:
    """Whether a process, a child or not, has ended; the kernel has released its locks by then."""
    return is_readable(pidfd)


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """Duplicates a descriptor of another process.

    :raises OSError: EBADF when it has none of that number; EPERM without the right to trace that process (ptrace(2),
        "Ptrace access mode checking").
    """
    duplicate = _LIBC.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if duplicate < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(duplicate)


def stop(pidfd: int, pid: int, timeout: float) -> StopResult:
    """Stops every thread of a process, and returns when all have stopped.

    Blocks for `timeout` seconds at most. A thread that waits uninterruptibly in the kernel for that long (for a dead
    file server, say) counts as stopped: it stops before it executes another instruction of its own.
    """
    if proc.state_of(pid) == "T":
        return StopResult.ALREADY_STOPPED
    try:
        _send(pidfd, signal.SIGSTOP)
    except ProcessLookupError:
        return StopResult.GONE
    began, asked = time.monotonic(), False
    while True:
        try:
            # the kernel reports a child's stop when its last thread has stopped
            stands = os.waitid(os.P_PIDFD, pidfd, os.WSTOPPED | os.WNOHANG) is not None
        except ChildProcessError:
            stands = _all_threads(pid, _STILL)
        if has_ended(pidfd):
            return StopResult.GONE
        if stands:
            return StopResult.STOPPED
        waited = time.monotonic() - began
        if waited >= timeout:
            if _all_threads(pid, _STILL | _IN_THE_KERNEL):
                return StopResult.STOPPED
            resume(pidfd)
            return StopResult.TIMEOUT
        if waited >= timeout / 5 and not asked:
            asked = True
            _stop_each_thread(pid)
        time.sleep(STOP_POLL)


@contextlib.contextmanager
def standing_still(pidfd: int, pid: int, timeout: float) -> Iterator[bool]:
    """Keeps a process stopped while the block runs, unless it has ended. Yields False if it did not stop in time."""
    stopped = stop(pidfd, pid, timeout)
    try:
        yield stopped is not StopResult.TIMEOUT
    finally:
        if stopped is StopResult.STOPPED:
            resume(pidfd)


def resume(pidfd: int) -> None:
    pidfd_signal(pidfd, signal.SIGCONT)


def _stop_each_thread(pid: int) -> None:
    """Sends SIGSTOP to each thread: the main thread gets a signal to the process, and may wait uninterruptibly."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            _LIBC.tgkill(pid, int(task), int(signal.SIGSTOP))


def _all_threads(pid: int, states: frozenset[str]) -> bool:
    """Whether every thread is in one of these states. A process with a pending SIGSTOP makes no new threads."""
    try:
        return {proc.state_of(f"{pid}/task/{task}") for task in os.listdir(f"/proc/{pid}/task")} <= states
    except OSError:
        return False


def raise_oom_score(pid: int, by: int) -> None:
    """Raises the process's OOM score (of 1000): the kernel kills it earlier when memory is short. Needs no privilege.

    :raises OSError: when the process is gone or another user's.
    """
    path = Path(f"/proc/{pid}/oom_score_adj")
    path.write_text(str(min(int(path.read_text()) + by, _OOM_MAX)))


def lower_thread_priority(steps: int) -> None:
    """Lowers the priority of the calling thread only: on Linux each thread has a nice value (setpriority(2)).

    The priority stays where that is forbidden, or where it is the lowest already.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + steps)


def set_title(text: str) -> None:
    """Sets what `ps` shows for this process."""
    import setproctitle  # not at the top: tests of handlers alone need not install it

    setproctitle.setproctitle(text)
