"""Names the threads of this process: as Python or the kernel does, or by the library in whose code a thread waits."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

_STACK = 8 << 10
"""Bytes of a thread's stack that are searched for a return address into a library."""
_RUNTIME = ("libc.", "libc-", "libpthread", "ld-linux", "libpython", "python3", "[")
"""Libraries of the runtime, in which the threads of all libraries wait."""


def thread_names() -> dict[int, str]:
    """Returns the names of all threads but the main one, by their kernel thread ids.

    The kernel gives a new thread the name of its creator. A native thread with that name is named after the library
    whose code is on its stack, where /proc/PID/syscall and /proc/PID/mem can be read.
    """
    main = os.getpid()
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    own = _comm(main)
    names: dict[int, str] = {}
    for task in sorted(int(entry) for entry in os.listdir("/proc/self/task")):
        if task == main:
            continue
        name = known.get(task) or _comm(task)
        if name is None:
            continue  # it has just ended
        if name == own:
            library = _library_of(task)
            name = "an unnamed native thread" if library is None else f"a native thread of {library}"
        names[task] = name
    return names


def _comm(task: int) -> str | None:
    try:
        return Path(f"/proc/self/task/{task}/comm").read_text().rstrip("\n")
    except OSError:
        return None


def _library_of(task: int) -> str | None:
    """Returns the first library on a waiting thread's stack; None if the thread runs, or the kernel does not tell."""
    try:
        fields = Path(f"/proc/self/task/{task}/syscall").read_text().split()
        if len(fields) != 9:  # number, six arguments, stack pointer, program counter (proc(5))
            return None
        pointer = int(fields[7], 16)
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(pointer)
            stack = memory.read(_STACK)
    except (OSError, ValueError, OverflowError):
        return None
    code = _code()
    for (word,) in struct.iter_unpack("@N", stack[: len(stack) // 8 * 8]):
        for start, end, name in code:
            if start <= word < end:
                return name
    return None


def _code() -> list[tuple[int, int, str]]:
    """Returns start, end and name of each executable mapping, without those of `_RUNTIME`."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) != 6 or "x" not in fields[1]:
            continue
        name = Path(fields[5]).name
        if not name.startswith(_RUNTIME):
            start, _, end = fields[0].partition("-")
            found.append((int(start, 16), int(end, 16), name))
    return found
