"""How long tasks wait, against one ideal queue on the same arrivals."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib import ideal_queue
from scripts.lib.bench.figures import percentile, table
from scripts.lib.bench.handlers import RECORD
from scripts.lib.bench.peers import host
from scripts.lib.ideal_queue import Arrival
from tests.support.ajload import ajload
from tests.support.host import Host
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


MIXED = "5:90,200:10"
CASES = (
    Case("90 % 5 ms, 10 % 200 ms, 4 x 4 slots, 70 %", "wait", "--sleep", MIXED, 4, 4, 0.7),
    Case("90 % 5 ms, 10 % 200 ms, 4 x 4 slots, 90 %", "wait", "--sleep", MIXED, 4, 4, 0.9),
    Case("20 ms of CPU in threads, 2 x 1 slots, 75 %", "burn", "--cpu", "20", 2, 1, 0.75),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """99th percentiles in milliseconds, and the medians."""

    ideal: float
    measured: float
    ideal_median: float
    measured_median: float


async def run(directory: Path, *, seeds: int, seconds: float, only: str = "") -> dict[str, Any]:
    """Each case with `seeds` seeds of `seconds` each. Returns the figures, prints a table.

    Where handlers compute, the machine's other work (server, load, supervisor) makes them take longer than asked, and
    an ideal queue would wait for that too: a second row takes the time that each handler took by the clock.
    """
    rows: list[list[object]] = [
        ["waiting time, ms", "p99 ideal", "p99", "ratio", "p50 ideal", "p50", "ratios"]
    ]
    figures: dict[str, Any] = {"seeds": seeds, "seconds": seconds}
    record = directory / "record"
    async with NatsServer(directory) as server:
        for case in (c for c in CASES if only in c.name):
            # nothing is refused: this is about waiting
            workers = {"count": case.workers, "concurrency": case.slots, "backlog": 10_000}
            env = {RECORD: str(record)}
            found: dict[str, list[Waits]] = {}
            async with host(directory, server.url, {"task": case.handler}, workers, env) as ours:
                for seed in range(1, seeds + 1):
                    record.write_bytes(b"")
                    tasks = await _measure(server, ours, case, seed, seconds)
                    found.setdefault(case.name, []).append(_compare(tasks, case))
                    if took := _read_record(record):
                        tasks = [
                            (Arrival(arrival.at, took[n]), latency)
                            for n, (arrival, latency) in enumerate(tasks)
                        ]
                        found.setdefault(f"{case.name}, by the clock", []).append(_compare(tasks, case))
            for name, waits in found.items():
                row = _row(waits)
                ratios = [one.measured / one.ideal for one in waits]
                rows.append([name, *row.values(), " ".join(f"{ratio:.2f}" for ratio in ratios)])
                figures[name] = {**row, "ratios": ratios}
                print(f"{name}: {row['ratio']:.2f}", flush=True)
    print(table(rows))
    return figures


async def _measure(
    server: NatsServer, ours: Host, case: Case, seed: int, seconds: float
) -> list[tuple[Arrival, float]]:
    """The arrivals, in the order of their numbers, each with its latency in milliseconds."""
    mean = ideal_queue.mean(ideal_queue.parse_distribution(case.distribution))
    rate = case.load * case.workers * case.slots / mean * 1000
    trace = ours.directory / f"trace-{seed}.csv"
    load = ("-t", "task", "-n", str(int(rate * seconds)), "-r", f"{rate:.3f}", case.option, case.distribution)
    figures = await ajload(
        server.url, *load, "-d", "120", "--seed", str(seed), "--trace", str(trace), timeout=seconds * 3 + 60
    )
    if figures["ok"] != figures["sent"]:
        raise RuntimeError(f"not everything was answered as asked: {figures}")
    return ideal_queue.read_trace(trace)


def _read_record(record: Path) -> dict[int, float]:
    """Milliseconds that each task's handler took, by the task's number; empty when they record nothing."""
    lines = (line.split() for line in record.read_text().splitlines())
    return {int(number): float(took) for number, took in lines}


def _compare(tasks: list[tuple[Arrival, float]], case: Case) -> Waits:
    ideal = ideal_queue.waiting_times((arrival for arrival, _ in tasks), case.workers * case.slots)
    measured = [max(latency - arrival.service, 0.0) for arrival, latency in tasks]
    return Waits(
        percentile(ideal, 99), percentile(measured, 99), percentile(ideal, 50), percentile(measured, 50)
    )


def _row(waits: list[Waits]) -> dict[str, float]:
    ideal = statistics.mean(one.ideal for one in waits)
    measured = statistics.mean(one.measured for one in waits)
    return {
        "p99_ideal_ms": ideal,
        "p99_ms": measured,
        "ratio": measured / ideal,
        "p50_ideal_ms": statistics.mean(one.ideal_median for one in waits),
        "p50_ms": statistics.mean(one.measured_median for one in waits),
    }
