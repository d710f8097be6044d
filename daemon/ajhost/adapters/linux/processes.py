"""Processes as Linux offers them: how they end, stopping, signals, sizes, titles."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import select
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ajhost.core.timings import STOP_POLL

STACKS_OF_IMPORTS = int(signal.SIGRTMAX) - 2
"""Asks a process that imports handlers for its stacks: a signal that no handler's import takes for itself."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
_MARK = 1 << 62
GENERATION_MARK = 1 << 61
"""Added to the number of a generation: the mark of its template, and of what its imports start."""
_PIDFD_GETFD = 438
"""pidfd_getfd(2), the same number on every architecture (asm-generic/unistd.h); glibc has it since 2.36."""
_OOM_MAX = 1000
_MANY_FILES = 1 << 16
"""What the unit has (LimitNOFILE=)."""
_FILES_OF_HOST, _FILES_OF_WORKER = 36, 7
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STILL, _IN_THE_KERNEL = frozenset("TZX"), frozenset("D")
"""Letters of proc(5) for threads: stopped, or ended while others live; waiting uninterruptibly."""


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
    """The result of an attempt to stop a process."""

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


def mark(number: int) -> None:
    """Marks this process, and all that will descend from it, with the number of a worker; `mark_of` reads it.

    A template's is its generation plus `GENERATION_MARK`, larger than any worker's: a limit can only be lowered.

    The mark is a limit without effect: RLIMIT_RTTIME concerns real-time scheduling only, and this is 146,000 years. It
    is one of the few things that a process inherits through fork, exec and setsid, and that others can see. Where a
    limit is set already, or may not be set, there is no mark.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (_MARK + number, _MARK + number))


def mark_of(pid: int) -> int | None:
    """The number that `mark` gave to a process or an ancestor of it; None if it has none, or is gone."""
    soft = _told(f"{pid}/limits", r"Max realtime timeout\s+(\d+)\s")
    return int(soft) - _MARK if int(soft or 0) > _MARK else None


def _told(file: str, pattern: str) -> str:
    """What a line of a file of /proc says in the pattern's group; empty without such a line, or if nobody may know."""
    with contextlib.suppress(OSError):
        found = re.search(f"^{pattern}", Path(f"/proc/{file}").read_text(), re.MULTILINE)
        return "" if found is None else found[1]
    return ""


def die_with_parent(parent: int) -> None:
    """SIGKILLs this process when the thread that started it ends; at once if `parent` is gone already.

    A child that is forked later does not inherit it (prctl(2)). :raises OSError: when the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def ending_with_parent(command: Sequence[str]) -> list[str]:
    """`command`, SIGKILLed when the thread that starts it ends; as it is where there is no setpriv(1).

    setpriv asks the kernel for it, so that no code of ours runs between fork and exec.
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
    """Reaps a child and says how it ended.

    None when it runs, or is not this process's child yet: a worker that died before the process between it and its
    template. If the pidfd is readable and this returns None, call it again.
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
    """Sends a signal; nothing happens when the process has ended.

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
    """The process of a pidfd. :raises ProcessLookupError: when it was reaped."""
    if pid := int(_told(f"self/fdinfo/{pidfd}", r"Pid:\s*(\d+)") or 0):  # -1 when it was reaped
        return pid
    raise ProcessLookupError


def kill_session(pid: int, number: signal.Signals) -> None:
    """Sends a signal to what a session leader, dead or not, has left in its process group.

    A child that made a process group of its own is not reached.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def has_ended(pidfd: int) -> bool:
    """Whether a process, a child or not, has ended; its locks are gone then."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    return bool(ended.poll(0))


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """A duplicate of a descriptor of another process.

    :raises OSError: EBADF when it has none of that number; EPERM without the right to trace that process (ptrace(2),
        "Ptrace access mode checking").
    """
    duplicate = _LIBC.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if duplicate < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(duplicate)


def stop(pidfd: int, pid: int, timeout: float) -> StopResult:
    """Stops every thread of a process, and returns when all stand still.

    Blocks for `timeout` seconds at most. A thread that waits uninterruptibly in the kernel for that long (for a dead
    file server, say) counts as stopped: it stops before it executes another instruction of its own.
    """
    if state_of(pid) == "T":
        return StopResult.ALREADY_STOPPED
    try:
        _send(pidfd, signal.SIGSTOP)
    except ProcessLookupError:
        return StopResult.GONE
    began, asked = time.monotonic(), False
    while True:
        try:
            # a child's stop is reported when the last thread stands still
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
    """A process stands still while the block runs, or has ended. False: it could not be stopped in time."""
    stopped = stop(pidfd, pid, timeout)
    try:
        yield stopped is not StopResult.TIMEOUT
    finally:
        if stopped is StopResult.STOPPED:
            resume(pidfd)


def resume(pidfd: int) -> None:
    """Resumes a stopped process."""
    pidfd_signal(pidfd, signal.SIGCONT)


def _stop_each_thread(pid: int) -> None:
    """Sends SIGSTOP to each thread: the main thread takes a signal to the process, and may wait in the kernel."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            _LIBC.tgkill(pid, int(task), int(signal.SIGSTOP))


def _all_threads(pid: int, states: frozenset[str]) -> bool:
    """Whether every thread is in one of these states. A process with a pending SIGSTOP makes no new threads."""
    try:
        return {state_of(f"{pid}/task/{task}") for task in os.listdir(f"/proc/{pid}/task")} <= states
    except OSError:
        return False


def state_of(process: int | str) -> str:
    """The letter that `ps` shows (proc(5)) for a process, or `PID/task/TID`; empty if there is no such."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def raise_file_limit() -> None:
    """Lets this process, and what it starts, open as many files as its hard limit allows (getrlimit(2), RLIMIT_NOFILE).

    The soft limit is 1,024 almost everywhere, for programs that call select(2); 200 workers need more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard and (hard == resource.RLIM_INFINITY or soft < hard):
        with contextlib.suppress(OSError, ValueError):
            wanted = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def lacking_proc() -> str | None:
    """Why /proc does not show this process, whose descriptors and children a host looks up there; None if it does."""
    try:
        shown = os.readlink("/proc/self")
    except OSError:
        found = "no file system of processes"
    else:
        if shown == str(os.getpid()):
            return None
        found = "that of another PID namespace"
    return f"/proc: found {found}, allowed: our own (mount -t proc proc /proc, unshare --mount-proc)"


def lacking_files(workers: int) -> str | None:
    """Why this process may not open the files that a host with so many workers has; None if it may.

    That of a supervisor in a reload: each worker has a channel, a pidfd, a ledger and its mapping, and two sockets.
    """
    needed = _FILES_OF_HOST + _FILES_OF_WORKER * workers
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return None
    limit = f"this process may have {hard} (ulimit -Hn, LimitNOFILE=)"
    return f"workers.count: {workers} workers need {needed} open files, and {limit}"


def raise_oom_score(pid: int, by: int) -> None:
    """Raises the process's OOM score (of 1000): the kernel kills it earlier when memory is short. Needs no privilege.

    :raises OSError: when the process is gone or another user's.
    """
    path = Path(f"/proc/{pid}/oom_score_adj")
    path.write_text(str(min(int(path.read_text()) + by, _OOM_MAX)))


def lower_thread_priority(steps: int) -> None:
    """Lowers the priority of the calling thread only: on Linux each thread has a nice value (setpriority(2)).

    It stays as it is where that is forbidden, or where it is the lowest already.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + steps)


def descriptors(pid: int) -> tuple[int, int]:
    """How many descriptors a process has open, and how many it may have; zeros when nobody may know, or it is gone."""
    try:
        used = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0, 0
    return used, int(_told(f"{pid}/limits", r"Max open files\s+(\d+)") or 0)


def caught_signals(process: int | str) -> int:
    """The bit mask of the signals that a process, or `self`, handles, in C as well (proc_pid_status(5), SigCgt)."""
    return int(_told(f"{process}/status", r"SigCgt:\s*([0-9a-f]+)") or "0", 16)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; else it could end it."""
    return bool(caught_signals(pid) >> (number - 1) & 1)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, in seconds.

    :raises OSError: when the process is gone.
    """
    # its name, in parentheses, may hold anything
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """The resident set of a process, in bytes, shared pages included.

    :raises OSError: when the process is gone.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def set_title(text: str) -> None:
    """Sets what `ps` shows for this process."""
    import setproctitle  # not at the top: whoever only tests handlers need not have it

    setproctitle.setproctitle(text)
