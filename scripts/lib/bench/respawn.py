"""How soon after a kill -9 the dead worker's tasks are answered, and another one serves in its place."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any

from scripts.lib.bench.measurement import percentile, table
from scripts.lib.bench.peers import host
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router

_RUNNING = 8
"""Tasks that a worker has started when it is killed, at most: they go to members of the group at random."""
_SETTLE = 1.1
"""Seconds between two kills: a worker that dies within a second of service is replaced with a delay, on purpose."""


async def run(directory: Path, *, kills: int) -> dict[str, Any]:
    """`kills` kills at 4 workers and as many at 1. Returns the figures, prints a table."""
    rows: list[list[object]] = [
        ["ms from the kill", "median", "p99", "max", "", "answered: median", "p99", "max", "answers"]
    ]
    figures: dict[str, Any] = {"kills": kills}
    async with NatsServer(directory) as server:
        for count in (4, 1):
            workers = {"count": count, "concurrency": 32}
            handlers = {"wait": "wait"}
            async with (
                host(directory, server.url, handlers, workers, log={"level": "info"}) as ours,
                Router(server.url) as router,
            ):
                served, answered = [], []
                for number in range(kills):
                    await asyncio.sleep(_SETTLE)
                    one, answers = await _kill(ours, router, number % count)
                    served.append(one)
                    answered += answers
            name = f"{count} worker{'s' if count > 1 else ''}"
            rows.append([name, *_three(served), "", *_three(answered), len(answered)])
            figures[name] = {"serves_ms": _named(served), "answered_ms": _named(answered)}
    print(table(rows))
    return figures


async def _kill(ours: Host, router: Router, slot: int) -> tuple[float, list[float]]:
    """Milliseconds until another serves in that slot, and until each task that the worker had started was answered."""
    requests = [await router.send("wait", {"seconds": 2}, deadline=20) for _ in range(_RUNNING)]
    await router.barrier()
    await asyncio.sleep(0.1)
    seen = len(ours.output.lines)
    pid = ours.workers()[slot]
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    served = await _serves(ours, slot, pid, seen)
    await router.settled(requests)
    died = [r.replies[0].at for r in requests if r.replies and r.replies[0].word == "worker died:"]
    return (served - began) * 1000, [(at - began) * 1000 for at in died]


async def _serves(ours: Host, slot: int, dead: int, since: int) -> float:
    """When the log says that another worker of the slot serves, which that worker told once it had subscribed."""

    def wanted(text: str) -> bool:
        return f"worker {slot} (pid " in text and " serves, " in text and f"(pid {dead})" not in text

    return (await ours.log(wanted, since=since)).at


def _three(values: list[float]) -> list[float | str]:
    if not values:
        return ["-", "-", "-"]
    return [statistics.median(values), percentile(values, 99), max(values)]


def _named(values: list[float]) -> dict[str, float]:
    three = _three(values)
    return {} if not values else dict(zip(("median", "p99", "max"), map(float, three), strict=True))
