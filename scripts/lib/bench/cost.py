"""What a no-op task costs its service, in CPU: the host beside a bare callback and FastStream, in turns."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.bench.measurement import cpu_seconds, table
from scripts.lib.bench.peers import HANDLERS, TYPED_HANDLERS, Service, host, peer
from tests.support.http_page import fetch
from tests.support.load_generator import ajload
from tests.support.nats import NatsServer, free_port

CONCURRENCIES = (1, 32, 256)
_TASKS = {1: 1_500, 32: 6_000, 256: 8_000}
"""So many at each concurrency that a turn takes two tenths of a second of CPU: what slows the machine down for a while
then slows down all that are compared. A slow peer gets a fifth.
"""
_SLOW = "faststream"
TYPED = "typed"
LIFESPAN = "lifespan"
MIDDLEWARE = "middleware"
WATCHED = "watched"
BASE = "bare callback"


@dataclass(frozen=True, slots=True)
class Sample:
    """One service under one load, once. `us` is its CPU per task, in microseconds; `beside` that of the supervisor."""

    us: float
    beside: float
    per_second: float


async def measure(url: str, service: Service, outstanding: int, tasks: int, supervisor: int) -> Sample:
    """Warms the service up, then counts. Raises RuntimeError when not every task was answered as asked."""
    load = ("-t", service.name, "-c", str(outstanding), "-d", "60", "--echo-id")
    await ajload(url, *load, "-n", str(max(tasks // 10, 200)))
    before, beside = service.cpu(), cpu_seconds(supervisor)
    figures = await ajload(url, *load, "-n", str(tasks))
    after, beside_after = service.cpu(), cpu_seconds(supervisor)
    if figures["ok"] != tasks or figures["duplicates"]:
        raise RuntimeError(f"{service.name} did not answer as asked: {figures}")
    return Sample((after - before) * 1e6 / tasks, (beside_after - beside) * 1e6 / tasks, float(figures["per_s"]))


async def run(directory: Path, *, rounds: int, scale: float, slots: int) -> dict[str, Any]:
    """`rounds` rounds over all services and concurrencies; returns the figures and prints them as a table.

    `slots` is the host's `concurrency`, `scale` a factor for the number of tasks.
    """
    workers = {"count": 1, "concurrency": slots, "backlog": 512}
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(NatsServer(directory))
        ours = await stack.enter_async_context(
            host(
                directory,
                server.url,
                {"ajhost": "noop", TYPED: f"{TYPED_HANDLERS}:noop"},
                workers,
            )
        )
        with_lifespan = await stack.enter_async_context(
            host(
                directory,
                server.url,
                {LIFESPAN: "stateful_noop"},
                workers,
                python={"lifespan": f"{HANDLERS}:lifespan"},
            )
        )
        with_middleware = await stack.enter_async_context(
            host(
                directory,
                server.url,
                {MIDDLEWARE: "noop"},
                workers,
                python={"middleware": [f"{HANDLERS}:around"]},
            )
        )
        looked_at = await stack.enter_async_context(
            host(
                directory,
                server.url,
                {WATCHED: "noop"},
                workers,
                http={"listen": (listen := f"127.0.0.1:{free_port()}")},
            )
        )
        stack.push_async_callback(_end, asyncio.create_task(_watch(listen)))
        services = {
            "ajhost": Service("ajhost", tuple(ours.workers().values())),
            "ajhost, typed payload": Service(TYPED, tuple(ours.workers().values())),
            "ajhost, one middleware": Service(MIDDLEWARE, tuple(with_middleware.workers().values())),
            "ajhost, lifespan": Service(LIFESPAN, tuple(with_lifespan.workers().values())),
            "ajhost, page open, metrics scraped": Service(WATCHED, tuple(looked_at.workers().values())),
            BASE: await stack.enter_async_context(peer("peer_bare_callback", "bare", server.url)),
        }
        if importlib.util.find_spec("faststream") is not None:
            services["FastStream"] = await stack.enter_async_context(peer("peer_faststream", _SLOW, server.url))
        samples: dict[tuple[str, int], list[Sample]] = {}
        supervisors = {"ajhost": ours.pid, WATCHED: looked_at.pid}
        began, before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in supervisors.items()}
        for number in range(rounds):
            turns = list(services.items())
            if number % 2:
                turns.reverse()
            for outstanding in CONCURRENCIES:
                tasks = max(int(_TASKS[outstanding] * scale), 100)
                for name, service in turns:
                    count = tasks // 5 if service.name == _SLOW else tasks
                    sample = await measure(server.url, service, outstanding, count, ours.pid)
                    samples.setdefault((name, outstanding), []).append(sample)
            print(f"round {number + 1} of {rounds}", flush=True)
        passed = time.monotonic() - began
        shares = {name: (cpu_seconds(pid) - before[name]) / passed for name, pid in supervisors.items()}
    figures = _report(samples, list(services), slots)
    figures["supervisor_share_of_a_cpu"] = shares
    print(
        f"the supervisor uses {shares['ajhost']:.2%} of a CPU, and {shares[WATCHED]:.2%} "
        "with the page open and metrics scraped, both once a second"
    )
    return figures


async def _watch(listen: str) -> None:
    """A browser with the page open, and a Prometheus that scrapes once a second."""
    address, _, port = listen.rpartition(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    try:
        writer.write(f"GET /events HTTP/1.1\r\nHost: {listen}\r\n\r\n".encode())
        while await reader.readuntil(b"\n\n"):
            page = await fetch(listen, "/metrics")
            if page.status != 200:
                raise RuntimeError(f"/metrics: {page.status}")
    finally:
        writer.transport.abort()


async def _end(task: asyncio.Task[None]) -> None:
    """Ends the watching; it must not have ended by itself."""
    if task.done():
        task.result()
    task.cancel()


def _report(samples: dict[tuple[str, int], list[Sample]], names: list[str], slots: int) -> dict[str, Any]:
    def median(name: str, outstanding: int, what: str) -> float:
        return statistics.median(float(getattr(sample, what)) for sample in samples[name, outstanding])

    rows: list[list[object]] = [["service CPU per no-op task, us", *(f"c={c}" for c in CONCURRENCIES)]]
    figures: dict[str, Any] = {"slots": slots, "us_per_task": {}, "ratio": {}, "per_second": {}}
    for name in names:
        us = [median(name, c, "us") for c in CONCURRENCIES]
        rows.append([name, *us])
        figures["us_per_task"][name] = dict(zip(map(str, CONCURRENCIES), us, strict=True))
        figures["per_second"][name] = {str(c): median(name, c, "per_second") for c in CONCURRENCIES}
    supervisor = [median("ajhost", c, "beside") for c in CONCURRENCIES]
    rows.append(["ajhost, its supervisor besides", *supervisor])
    figures["supervisor_us_per_task"] = dict(zip(map(str, CONCURRENCIES), supervisor, strict=True))
    for name in names:
        # of each round its own ratio: what disturbs a round disturbs both
        ratios = [
            statistics.median(mine.us / base.us for mine, base in zip(samples[name, c], samples[BASE, c], strict=True))
            for c in CONCURRENCIES
        ]
        rows.append([f"{name} / {BASE}", *ratios])
        figures["ratio"][name] = dict(zip(map(str, CONCURRENCIES), ratios, strict=True))
    print(table(rows))
    return figures
