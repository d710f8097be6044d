"""Handlers for tests: what applications do, and what they should not do.

Each reads its instructions from the payload, a JSON object (which the load generator writes as well). With `record`, a
path, each run appends one line `<task id> <pid>` to that file before anything else, so that tests count runs.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NoReturn

from ajhost import Task, TerminateTask

_PYTHON = ctypes.pythonapi
"""CPython's own functions; calls through it keep the GIL."""
_PYTHON.PyThread_allocate_lock.restype = ctypes.c_void_p
_PYTHON.PyThread_acquire_lock_timed.argtypes = [ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int]


def _instructions(task: Task) -> dict[str, Any]:
    wanted = task.json() if task.payload else {}
    if not isinstance(wanted, dict):
        raise TypeError(f"instructions are an object, not {wanted!r}")
    if "record" in wanted:
        record = os.open(wanted["record"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # one write of less than a page to a file opened with O_APPEND is never torn
            os.write(record, f"{task.id} {os.getpid()}\n".encode())
        finally:
            os.close(record)
    return wanted


def _burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def _wait_with_gil(milliseconds: float) -> None:
    """Waits for a lock that nobody gives back. It goes on after a signal, by which `usleep` would end early."""
    lock = _PYTHON.PyThread_allocate_lock()
    for microseconds in (0, int(milliseconds * 1000)):
        _PYTHON.PyThread_acquire_lock_timed(lock, microseconds, 0)


def _finish(task: Task, wanted: dict[str, Any]) -> dict[str, Any]:
    match wanted.get("kind", "ok"):
        case "error":
            raise RuntimeError(wanted.get("text", "asked to fail"))
        case "terminate":
            raise TerminateTask(wanted.get("text", "asked to terminate"))
        case _:
            return {"id": task.id, "type": task.type, "pid": os.getpid(), "tries": task.tries}


async def echo(task: Task) -> bytes:
    """Its payload, as it came."""
    return task.payload


def echo_sync(task: Task) -> bytes:
    """The same in a thread."""
    return task.payload


async def work(task: Task) -> dict[str, Any]:
    """`sleep_ms`, then `cpu_ms`, then `kind`: ok, error or terminate with `text`."""
    wanted = _instructions(task)
    if sleep := wanted.get("sleep_ms", 0):
        await asyncio.sleep(sleep / 1000)
    if cpu := wanted.get("cpu_ms", 0):
        _burn(cpu / 1000)
    return _finish(task, wanted)


def work_sync(task: Task) -> dict[str, Any]:
    """The same in a thread."""
    wanted = _instructions(task)
    if sleep := wanted.get("sleep_ms", 0):
        time.sleep(sleep / 1000)
    if cpu := wanted.get("cpu_ms", 0):
        _burn(cpu / 1000)
    return _finish(task, wanted)


async def describe(task: Task) -> dict[str, Any]:
    """Everything that a handler can see of its task."""
    return {
        "id": task.id,
        "type": task.type,
        "queue": task.queue,
        "payload": task.payload.decode(),
        "tries": task.tries,
        "max_tries": task.max_tries,
        "created": task.created.isoformat(),
        "deadline": task.deadline.isoformat(),
        "remaining": task.remaining(),
        "dependencies": task.dependencies,
        "dependency_results": task.dependency_results,
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
    }


async def error(task: Task) -> NoReturn:
    """A plain exception with `text`."""
    raise RuntimeError(_instructions(task).get("text", "asked to fail"))


async def terminate(task: Task) -> NoReturn:
    """TerminateTask with `text`."""
    raise TerminateTask(_instructions(task).get("text", "asked to terminate"))


# handlers that do not stop


async def block_loop(task: Task) -> str:
    """Holds the event loop for `block_ms`, with the GIL free."""
    time.sleep(_instructions(task)["block_ms"] / 1000)
    return "blocked the loop"


async def hold_gil(task: Task) -> str:
    """Holds the GIL in C for `block_ms`, so that no thread of the process runs."""
    _wait_with_gil(_instructions(task)["block_ms"])
    return "held the GIL"


async def wait_in_the_kernel(task: Task) -> str:
    """Waits for `block_ms` uninterruptibly, as for a dead file server: for a child that cannot begin."""
    with tempfile.TemporaryDirectory() as directory:
        fifo = f"{directory}/fifo"
        os.mkfifo(fifo)
        seconds = _instructions(task)["block_ms"] / 1000
        with subprocess.Popen(["/bin/sh", "-c", f"sleep {seconds}; : > {fifo}"]):
            os.waitpid(
                os.posix_spawn(
                    "/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)]
                ),
                0,
            )
    return "waited in the kernel"


def hold_gil_sync(task: Task) -> str:
    """The same from a thread."""
    _wait_with_gil(_instructions(task)["block_ms"])
    return "held the GIL"


async def swallow_cancellation(task: Task) -> str:
    """Goes on after each cancellation, for `sleep_ms` in all."""
    end = time.monotonic() + _instructions(task).get("sleep_ms", 3_600_000) / 1000
    while (left := end - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    return "never mind"


async def clean_up_long(task: Task) -> str:
    """On its cancellation it tidies up for `cleanup_ms`, then gives way."""
    wanted = _instructions(task)
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(wanted["cleanup_ms"] / 1000)
    return "not reached"


def stuck_thread(task: Task) -> str:
    """A thread that nothing stops, for `sleep_ms` (an hour)."""
    time.sleep(_instructions(task).get("sleep_ms", 3_600_000) / 1000)
    return "came back"


# handlers that take their process with them


async def segfault(task: Task) -> str:
    """Reads address 0."""
    _instructions(task)
    ctypes.string_at(0)
    return "not reached"


async def exit_now(task: Task) -> NoReturn:
    """`os._exit`, which nothing can intercept."""
    os._exit(_instructions(task).get("status", 3))


async def system_exit(task: Task) -> NoReturn:
    """`sys.exit` from a handler."""
    sys.exit(_instructions(task).get("status", 4))


def system_exit_sync(task: Task) -> NoReturn:
    """`sys.exit` from a thread."""
    sys.exit(_instructions(task).get("status", 4))


async def kill_self(task: Task) -> NoReturn:
    """SIGKILL to its own process, after `sleep_ms`."""
    await asyncio.sleep(_instructions(task).get("sleep_ms", 0) / 1000)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


async def fork_children(task: Task) -> dict[str, Any]:
    """Forks `count` children that hold everything open and sleep; then sleeps `sleep_ms` itself."""
    wanted = _instructions(task)
    pids = []
    for _ in range(wanted.get("count", 1)):
        pid = os.fork()
        if pid == 0:
            time.sleep(3600)
            os._exit(0)
        pids.append(pid)
    await asyncio.sleep(wanted.get("sleep_ms", 0) / 1000)
    return {"pid": os.getpid(), "children": pids}


async def allocate(task: Task) -> str:
    """Touches `bytes` of memory and keeps them for `sleep_ms`."""
    wanted = _instructions(task)
    held = bytearray(wanted["bytes"])
    held[::4096] = b"\1" * len(held[::4096])
    await asyncio.sleep(wanted.get("sleep_ms", 0) / 1000)
    return f"held {len(held)} bytes"


_leaked: list[bytearray] = []


async def leak(task: Task) -> str:
    """Keeps `bytes` more for ever."""
    _leaked.append(bytearray(b"\1" * _instructions(task)["bytes"]))
    return f"{len(_leaked)} leaks"


# results and exceptions that are hard to answer with


async def huge_result(task: Task) -> bytes:
    """`bytes` bytes."""
    return b"x" * int(_instructions(task)["bytes"])


async def unserialisable(task: Task) -> object:
    """What JSON has no words for."""
    _instructions(task)
    return {"object": object(), "set": {1, 2}}


class _StrRaises(Exception):
    def __str__(self) -> str:
        raise ValueError("even str() fails")


class _Base(BaseException):
    """Derives from BaseException, as few do."""


_STRANGE: dict[str, BaseException] = {
    "BaseException": _Base("a BaseException"),
    "ExceptionGroup": ExceptionGroup("a group", [ValueError("one"), TypeError("two")]),
    "BaseExceptionGroup": BaseExceptionGroup("a base group", [KeyboardInterrupt(), ValueError("two")]),
    "CancelledError": asyncio.CancelledError("of its own"),
    "StopIteration": StopIteration("at the end"),
    "StopAsyncIteration": StopAsyncIteration("at the end"),
    "GeneratorExit": GeneratorExit("out"),
    "KeyboardInterrupt": KeyboardInterrupt("from a handler"),
    "TimeoutError": TimeoutError("of its own"),
    "StrRaises": _StrRaises(),
    "Empty": RuntimeError(""),
    "Blank": RuntimeError(" \r\n\t "),
    "Lines": RuntimeError("one\r\nAJ-Terminate: injected\r\n\r\ntwo"),
    "Long": RuntimeError("long " * 10_000),
    "Surrogate": RuntimeError("half \ud83d of a pair"),
    "EmptyTerminate": TerminateTask(""),
    "RecursionError": RecursionError("too deep"),
    "MemoryError": MemoryError(),
}
STRANGE = tuple(_STRANGE)
"""What `strange` and `strange_sync` know as `exception`."""


async def strange(task: Task) -> NoReturn:
    """Raises the `exception` of that name."""
    raise _STRANGE[_instructions(task)["exception"]]


def strange_sync(task: Task) -> NoReturn:
    """The same from a thread."""
    raise _STRANGE[_instructions(task)["exception"]]


async def speak(task: Task) -> str:
    """Prints to stdout, stderr and from C, as `text` says."""
    text: str = _instructions(task)["text"]
    print(f"stdout: {text}", flush=True)
    print(f"stderr: {text}", file=sys.stderr, flush=True)
    os.write(2, f"fd 2: {text}\n".encode())
    return text
