"""How long tasks wait, against one ideal queue on the same arrivals."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib import queue_simulation
from scripts.lib.bench.handlers import RECORD
from scripts.lib.bench.measurement import percentile, table
from scripts.lib.bench.peer_process_pool import PROCESSES
from scripts.lib.bench.peers import host, peer
from scripts.lib.queue_simulation import Arrival
from tests.support.load_generator import ajload
from tests.support.nats import NatsServer


@dataclass(frozen=True, slots=True)
class Case:
    """`workers` processes of `slots` each, tasks of a `distribution` (ms) that sleep or compute, at a `load` of 1."""

    name: str
    handler: str
    option: str
    distribution: str
    workers: int
    slots: int
    load: float

    @property
    def computes(self) -> bool:
        """Whether its handlers use a processor all the time, and record how long they took."""
        return self.option == "--cpu"


OURS, POOL = "ours", "pool"
"""The types of the tasks that the host runs, and the bare pool."""
MIXED = "5:90,200:10"
CASES = (
    Case("90 % 5 ms, 10 % 200 ms, 4 x 4 slots, 70 %", "wait", "--sleep", MIXED, 4, 4, 0.7),
    Case("90 % 5 ms, 10 % 200 ms, 4 x 4 slots, 90 %", "wait", "--sleep", MIXED, 4, 4, 0.9),
    Case("20 ms of CPU in threads, 2 x 1 slots, 75 %", "burn", "--cpu", "20", PROCESSES, 1, 0.75),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """99th percentiles and medians in milliseconds, of a yardstick and of what is measured by it."""

    yardstick: float
    measured: float
    yardstick_median: float
    measured_median: float


async def run(directory: Path, *, seeds: int, seconds: float, only: str = "") -> dict[str, Any]:
    """Each case with `seeds` seeds of `seconds` each. Returns the figures, prints a table.

    Where handlers compute, the machine's other work (server, load, supervisor) makes them take longer than asked, and
    an ideal queue would wait for that too. So there are more rows: by the ideal queue with the time that each handler
    took by the clock; a bare pool (`peer_process_pool`) by the ideal queue; and ours by the bare pool.

    The server has one processor at a time. With two, Go's runtime wakes a second thread at almost every message, to
    look for work that is not there: 0.19 instead of 0.14 ms of CPU per task, which a server on a machine of its own
    would not take from the handlers (p99 over ideal 1.17 and 1.14, in turns).
    """
    rows: list[list[object]] = [["waiting time, ms", "p99 yardstick", "p99", "ratio", "p50 yardstick", "p50", "ratios"]]
    figures: dict[str, Any] = {"seeds": seeds, "seconds": seconds}
    record = directory / "record"
    async with NatsServer(directory, processors=1) as server:
        for case in (c for c in CASES if only in c.name):
            # nothing is refused: this is about waiting
            workers = {"count": case.workers, "concurrency": case.slots, "backlog": 10_000}
            env = {RECORD: str(record)}
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(host(directory, server.url, {OURS: case.handler}, workers, env))
                if case.computes:
                    await stack.enter_async_context(peer("peer_process_pool", POOL, server.url, env))
                found = [await _waits(server, directory, record, case, seed, seconds) for seed in range(1, seeds + 1)]
            for name in found[0]:
                waits = [one[name] for one in found]
                row, ratios = _row(waits), [one.measured / one.yardstick for one in waits]
                rows.append([name, *row.values(), " ".join(f"{ratio:.2f}" for ratio in ratios)])
                figures[name] = {**row, "ratios": ratios}
                print(f"{name}: {row['ratio']:.2f}", flush=True)
    print(table(rows))
    return figures


async def _waits(
    server: NatsServer, directory: Path, record: Path, case: Case, seed: int, seconds: float
) -> dict[str, Waits]:
    """What one seed gives, by the name of its row."""
    record.write_bytes(b"")
    tasks = await _measure(server, OURS, directory, case, seed, seconds)
    ours = _compare(tasks, case)
    if not case.computes:
        return {case.name: ours}
    took = _read_record(record)
    tasks = [(Arrival(task.at, took[n]), latency) for n, (task, latency) in enumerate(tasks)]
    pool = _compare(await _measure(server, POOL, directory, case, seed, seconds), case)
    return {
        case.name: ours,
        f"{case.name}: by the clock": _compare(tasks, case),
        f"{case.name}: a bare pool": pool,
        f"{case.name}: by the bare pool": Waits(
            pool.measured, ours.measured, pool.measured_median, ours.measured_median
        ),
    }


async def _measure(
    server: NatsServer, type_: str, directory: Path, case: Case, seed: int, seconds: float
) -> list[tuple[Arrival, float]]:
    """The arrivals of one type's tasks, in the order of their numbers, each with its latency in milliseconds."""
    mean = queue_simulation.mean(queue_simulation.parse_distribution(case.distribution))
    rate = case.load * case.workers * case.slots / mean * 1000
    trace = directory / f"trace-{type_}-{seed}.csv"
    load = ("-t", type_, "-n", str(int(rate * seconds)), "-r", f"{rate:.3f}", case.option, case.distribution)
    figures = await ajload(
        server.url, *load, "-d", "120", "--seed", str(seed), "--trace", str(trace), timeout=seconds * 3 + 60
    )
    if figures["ok"] != figures["sent"]:
        raise RuntimeError(f"not everything was answered as asked: {figures}")
    return queue_simulation.read_trace(trace)


def _read_record(record: Path) -> dict[int, float]:
    """Milliseconds that each task's handler took, by the task's number; empty when they record nothing."""
    lines = (line.split() for line in record.read_text().splitlines())
    return {int(number): float(took) for number, took in lines}


def _compare(tasks: list[tuple[Arrival, float]], case: Case) -> Waits:
    ideal = queue_simulation.waiting_times((arrival for arrival, _ in tasks), case.workers * case.slots)
    measured = [max(latency - arrival.service, 0.0) for arrival, latency in tasks]
    return Waits(percentile(ideal, 99), percentile(measured, 99), percentile(ideal, 50), percentile(measured, 50))


def _row(waits: list[Waits]) -> dict[str, float]:
    yardstick = statistics.mean(one.yardstick for one in waits)
    measured = statistics.mean(one.measured for one in waits)
    return {
        "p99_yardstick_ms": yardstick,
        "p99_ms": measured,
        "ratio": measured / yardstick,
        "p50_yardstick_ms": statistics.mean(one.yardstick_median for one in waits),
        "p50_ms": statistics.mean(one.measured_median for one in waits),
    }
