"""Handlers of the benchmarks, the same work for every peer."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from ajhost import Task, Worker

RECORD = "AJHOST_BENCH_RECORD"
"""The environment variable that names the file in which `burn` says how long it took."""


def noop_result(task_id: str, arguments: dict[str, Any]) -> bytes:
    """What a no-op task answers, as every peer makes it."""
    return orjson.dumps({"id": task_id, "n": arguments.get("n")})


async def noop(task: Task) -> bytes:
    """Reads its arguments and answers."""
    return noop_result(task.id, task.json())


async def lifespan(worker: Worker) -> AsyncIterator[str]:
    """Has nothing to open."""
    yield "state"


async def around(task: Task[str], call: Callable[[Task[str]], Awaitable[object]]) -> object:
    """A middleware that adds nothing."""
    return await call(task)


async def stateful_noop(task: Task[str]) -> bytes:
    """As `noop`, with a look at what the lifespan has yielded."""
    assert task.state == "state"
    return noop_result(task.id, task.json())


async def wait(task: Task) -> str:
    """Waits for `seconds`, or `sleep_ms`."""
    wanted = task.json()
    await asyncio.sleep(wanted.get("seconds", 0) + wanted.get("sleep_ms", 0) / 1000)
    return task.id


def burn(task: Task) -> str:
    """Computes for `cpu_ms` of its thread's time. Appends `<n> <milliseconds by the clock>` to the record."""
    begin, wanted = time.monotonic(), task.json()
    end = time.thread_time() + wanted["cpu_ms"] / 1000
    while time.thread_time() < end:
        sum(range(500))
    os.write(_record(), b"%d %.3f\n" % (wanted["n"], (time.monotonic() - begin) * 1000))
    return task.id


@functools.cache
def _record() -> int:
    # whole lines, whoever writes: O_APPEND, and each less than a page
    return os.open(os.environ[RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
