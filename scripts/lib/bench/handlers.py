"""Handlers of the benchmarks, the same work for every peer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from ajhost import Task


def noop_result(task_id: str, arguments: dict[str, Any]) -> bytes:
    """What a no-op task answers, as every peer makes it."""
    return orjson.dumps({"id": task_id, "n": arguments.get("n")})


async def noop(task: Task) -> bytes:
    """Reads its arguments and answers."""
    return noop_result(task.id, task.json())


async def wait(task: Task) -> str:
    """Waits for `seconds`, or `sleep_ms`."""
    wanted = task.json()
    await asyncio.sleep(wanted.get("seconds", 0) + wanted.get("sleep_ms", 0) / 1000)
    return task.id


def burn(task: Task) -> str:
    """Computes for `cpu_ms` of its thread's time."""
    end = time.thread_time() + task.json()["cpu_ms"] / 1000
    while time.thread_time() < end:
        sum(range(500))
    return task.id
