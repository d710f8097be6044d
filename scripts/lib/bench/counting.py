"""What it costs to count a completed no-op task, of all the CPU that it takes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ajhost.core.route_stats import StatsWriter, TaskTimes, file_size
from scripts.lib.bench.cost import CONCURRENCIES, measure
from scripts.lib.bench.measurement import table
from scripts.lib.bench.peers import COUNTED_HANDLERS, Service, host
from tests.support.nats import NatsServer
from tests.support.router import Router

_TASKS = {1: 1_000, 32: 4_000, 256: 6_000}
_TIMED = 20_000
_TIMES = 30
_SERVED, _NOTED, _BATCH = "ajhost", "noted", "batch"


async def run(directory: Path, *, rounds: int) -> dict[str, Any]:
    """Of `rounds` rounds the least: what else the machine does only adds. Returns the figures and prints a table."""
    handlers = {name: f"{COUNTED_HANDLERS}:{of}" for name, of in ((_NOTED, "noop"), (_BATCH, "batch"))}
    workers = {"count": 1, "concurrency": 256, "backlog": 512}
    whole, sizes = {}, {}
    async with (
        NatsServer(directory) as server,
        host(directory, server.url, {_SERVED: "noop"}, workers) as plain,
        host(directory, server.url, handlers, workers) as noting,
        Router(server.url) as router,
    ):
        service = Service(_SERVED, tuple(plain.workers().values()))
        noted = Service(_NOTED, tuple(noting.workers().values()))
        for outstanding, tasks in _TASKS.items():
            turns = [await measure(server.url, service, outstanding, tasks, plain.pid) for _ in range(rounds)]
            whole[outstanding] = min(sample.us for sample in turns)
            await router.request(_BATCH)
            await measure(server.url, noted, outstanding, tasks, noting.pid)
            sizes[outstanding] = max((await router.request(_BATCH)).json(), 1.0)
    each = {outstanding: _count_one(round(size)) for outstanding, size in sizes.items()}
    shares = {outstanding: each[outstanding] / whole[outstanding] for outstanding in CONCURRENCIES}
    rows: list[list[object]] = [["counting a completed no-op task", *(f"c={c}" for c in CONCURRENCIES)]]
    rows += [
        ["CPU of the task, us", *whole.values()],
        ["tasks counted at once", *sizes.values()],
        ["CPU of counting one, us", *each.values()],
        ["share, %", *(100 * share for share in shares.values())],
    ]
    print(table(rows))
    return {"us_per_task": whole, "at_once": sizes, "counting_us": each, "share": shares}


def _count_one(size: int) -> float:
    """Microseconds of CPU to note one task, and to store it with `size - 1` others."""
    writer = StatsWriter(memoryview(bytearray(file_size(1))), ["route"])
    best = float("inf")
    for _ in range(_TIMES):
        began = time.process_time()
        for _ in range(_TIMED // size):
            tasks: list[TaskTimes] = []
            for _ in range(size):
                tasks.append((0, 0.0003, 0.0002))  # noqa: PERF401  # as a worker does, one by one
            writer.completed(tasks)
        best = min(best, (time.process_time() - began) / (_TIMED // size * size))
    return best * 1e6
