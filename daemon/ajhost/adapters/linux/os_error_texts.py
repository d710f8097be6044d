"""Texts for what the kernel refuses, also to a handler: the call or file, and the limit behind the error number.
`Resource temporarily unavailable` alone does not tell an operator whether to raise `ulimit -u`, TasksMax= or a sysctl.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ajhost.adapters.own_code import PACKAGE
from ajhost.core.timings import REFUSAL_INTERVAL
from ajhost.settings.control_groups import control_groups

_SELF = Path("/proc/self")
_KERNEL = Path("/proc/sys/kernel")
_Limit = tuple[str, int, int]
"""A limit in words, how much of it is used, and how much there is."""


def described(error: OSError) -> str:
    """Returns the file or the call, the reason, and the limit that most likely caused the error."""
    return f"{error.filename or _call_of(error)}: {explained(error)}"


def explained(error: OSError) -> str:
    """Returns the reason and the limit, for a text that names the call or the file already."""
    hint = _HINTS.get(error.errno or 0)
    found = hint() if hint is not None else ""
    text = error.strerror or str(error)
    return f"{text} ({found})" if found else text


def _call_of(error: OSError) -> str:
    """Returns the innermost line of this package: a seccomp filter's EPERM names no file, and looks like any other."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if frame.filename.startswith(PACKAGE)), frames[-1])
    return frame.line or frame.name


def _limit(number: int) -> int | None:
    """Returns the soft limit of this process; None if it has none (getrlimit(2))."""
    soft, _ = resource.getrlimit(number)
    return None if soft == resource.RLIM_INFINITY else soft


def _file_size() -> str:
    limit = _limit(resource.RLIMIT_FSIZE)
    return "" if limit is None else f"a file may have {limit} bytes, less than a ledger: ulimit -f, LimitFSIZE="


def _open_files() -> str:
    return f"this process may open {_limit(resource.RLIMIT_NOFILE)}: ulimit -n, LimitNOFILE="


def no_thread() -> str:
    """Returns the text for a failed pthread_create(3), with the limits that are reached; if none is, memory lacked."""
    reached = _at_times(errno.EAGAIN)
    return f"no thread can be started ({reached})" if reached else "no thread can be started"


def no_connection(number: int) -> str:
    """Returns the text for a failed socket(2) or connect(2): the resource that this process or the machine lacks."""
    text = os.strerror(number).lower()
    if number == errno.EMFILE:
        limit = _limit(resource.RLIMIT_NOFILE)
        return f"{text}: {limit} of {limit}"
    if number == errno.EADDRNOTAVAIL:
        return f"{text}: are all client ports in use (net.ipv4.ip_local_port_range)?"
    return text


def limit_behind(error: BaseException) -> str:
    """Returns the limit behind an exception of the application's code; empty if none is known. Raises nothing.

    It costs little: handlers may be refused a thousand times a second.
    """
    try:
        if isinstance(error, OSError):
            number = vars(OSError)["errno"].__get__(error)  # past a subclass that has an `errno` of its own
            return _at_times(number or 0)
        if isinstance(error, MemoryError):
            return _at_times(errno.ENOMEM)
        # threading.Thread.start
        refused = type(error) is RuntimeError and error.args == ("can't start new thread",)
        return _at_times(errno.EAGAIN) if refused else ""
    except Exception:
        return ""


def _at_times(number: int) -> str:
    """Returns the limit behind an error number, sought every REFUSAL_INTERVAL at most: that may read all of /proc."""
    if number not in _LIMITS:
        return ""
    now = time.monotonic()
    until, text = _looked.get(number, (0.0, ""))
    if now >= until:
        text = _LIMITS[number]()
        _looked[number] = now + REFUSAL_INTERVAL, text
    return text


_looked: dict[int, tuple[float, str]] = {}
"""By error number: until when a text is valid (monotonic seconds), and the text."""


def _processes() -> str:
    """Returns the reached limits of processes and threads, behind EAGAIN of fork(2) and pthread_create(3).

    Returns all that are set if none is reached by now: a process may have ended meanwhile.
    """
    limits = list(_process_limits())
    return "; ".join(_reached(limits) or [text for text, _, _ in limits])


def _reached(limits: Iterable[_Limit]) -> list[str]:
    return [text for text, used, most in limits if used >= most]


def _process_limits() -> Iterator[_Limit]:
    for group in dict.fromkeys(control_groups(_SELF, "pids")):
        with contextlib.suppress(OSError, ValueError):  # "max", or the root group, which has no such file
            limit, used = int((group / "pids.max").read_text()), int((group / "pids.current").read_text())
            place = f"{group}/pids.max is {limit}, {used} are there"
            yield f"{place}: TasksMax=, --pids-limit", used, limit
    if (most := _limit(resource.RLIMIT_NPROC)) is not None:
        used, user = _threads_of_user(), os.getuid()
        yield f"user {user} may have {most} processes, {used} are there: ulimit -u, LimitNPROC=", used, most
    with contextlib.suppress(OSError, ValueError):
        threads = int((_KERNEL / "threads-max").read_text())
        used = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
        if used >= threads:
            yield f"the machine may have {threads} threads: sysctl kernel.threads-max", used, threads


def _threads_of_user() -> int:
    """Counts the threads of this real user id, as the kernel does, as far as /proc shows them."""
    found = 0
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, KeyError):
                lines = (process / "status").read_text().splitlines()
                fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                if int(fields["Uid"].split()[0]) == os.getuid():
                    found += int(fields["Threads"])
    return found


def _memory() -> str:
    return _memory_limits() or "the machine, or its vm.overcommit_memory, gives no more"


def _memory_limits() -> str:
    limits = (("-v", "LimitAS=", resource.RLIMIT_AS), ("-d", "LimitDATA=", resource.RLIMIT_DATA))
    found = [
        f"this process may have {most >> 20} MiB: ulimit {option}, {unit}"
        for option, unit, number in limits
        if (most := _limit(number)) is not None
    ]
    return "; ".join(found)


_HINTS: dict[int, Callable[[], str]] = {
    errno.EPERM: lambda: "a seccomp filter of the container or the unit may forbid it",
    errno.ENOSYS: lambda: "this kernel, or a seccomp filter of the container, does not have it",
    errno.EAFNOSUPPORT: lambda: "the sandbox allows no such sockets: RestrictAddressFamilies=",
    errno.EFBIG: _file_size,
    errno.EMFILE: _open_files,
    errno.ENFILE: lambda: "all of the machine: sysctl fs.file-max",
    errno.EAGAIN: _processes,
    errno.ENOMEM: _memory,
    errno.EROFS: lambda: "a read-only mount, or ReadOnlyPaths=: a ReadWritePaths= line, a tmpfs",
}
_LIMITS: dict[int, Callable[[], str]] = {
    # a handler's EAGAIN or ENOMEM may have other causes: only limits that are reached, or set
    errno.EAGAIN: lambda: "; ".join(_reached(_process_limits())),
    errno.EMFILE: _open_files,
    errno.ENFILE: _HINTS[errno.ENFILE],
    errno.ENOMEM: _memory_limits,
    errno.EROFS: _HINTS[errno.EROFS],
}
