"""Handlers of the fault run. Each run first of all appends a line `<task id> <pid> <Unix time>` to the record."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from typing import Any

from ajhost import Task, TerminateTask

RECORD = "AJHOST_SOAK_RECORD"
"""The environment variable that names the record file."""
_GIL_HELD = ctypes.PyDLL(None)
_file = -1


def _begin(task: Task) -> dict[str, Any]:
    global _file
    if _file < 0:
        # kept open over forks: with O_APPEND every write of less than a page goes to the end, and whole
        _file = os.open(os.environ[RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_file, f"{task.id} {os.getpid()} {time.time():.4f}\n".encode())
    wanted: dict[str, Any] = task.json()
    return wanted


def _end(task: Task, wanted: dict[str, Any]) -> dict[str, Any]:
    match wanted.get("kind"):
        case "error":
            raise RuntimeError("asked to fail")
        case "terminate":
            raise TerminateTask("asked to terminate")
        case _:
            return {"id": task.id}


async def work(task: Task) -> dict[str, Any]:
    """Waits for `ms` on the loop."""
    wanted = _begin(task)
    if ms := wanted["ms"]:
        await asyncio.sleep(ms / 1000)
    return _end(task, wanted)


def thread(task: Task) -> dict[str, Any]:
    """Waits for `ms` in a thread."""
    wanted = _begin(task)
    time.sleep(wanted["ms"] / 1000)
    return _end(task, wanted)


async def block(task: Task) -> dict[str, Any]:
    """Holds the loop for `ms`."""
    wanted = _begin(task)
    time.sleep(wanted["ms"] / 1000)  # noqa: ASYNC251
    return _end(task, wanted)


async def gil(task: Task) -> dict[str, Any]:
    """Holds the GIL in C for `ms`."""
    wanted = _begin(task)
    _GIL_HELD.usleep(int(wanted["ms"] * 1000))
    return _end(task, wanted)


async def deaf(task: Task) -> dict[str, Any]:
    """Goes on after each cancellation, for `ms` in all."""
    wanted = _begin(task)
    end = time.monotonic() + wanted["ms"] / 1000
    while (left := end - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    return _end(task, wanted)


async def fork(task: Task) -> dict[str, Any]:
    """Leaves a child that holds every descriptor, sockets included, and sleeps for a minute."""
    wanted = _begin(task)
    if os.fork() == 0:
        time.sleep(60)  # noqa: ASYNC251
        os._exit(0)
    await asyncio.sleep(wanted["ms"] / 1000)
    return _end(task, wanted)


async def crash(task: Task) -> dict[str, Any]:
    """Takes its process along: `how` is segfault, exit or kill."""
    match _begin(task)["how"]:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(7)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")
