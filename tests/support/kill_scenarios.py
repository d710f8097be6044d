"""Deaths of several processes at once, of a host whose sockets are kept, and what must come of them."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support import processes
from tests.support.fd_store import KeptHost
from tests.support.nats import NatsServer
from tests.support.router import Report, Router, Verdict

WORKERS = {"workers": {"count": 3, "concurrency": 8, "backlog": 2000}}
Fault = Callable[[KeptHost, random.Random], Awaitable[None]]


def _kill(pids: list[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        processes.send(pid, number)


def _everybody(host: KeptHost) -> list[int]:
    return [process.pid for process in host.all_processes()]


async def everybody_at_once(host: KeptHost, rng: random.Random) -> None:
    _kill(_everybody(host))
    await host.nothing_left()


async def a_worker_then_the_supervisor(host: KeptHost, rng: random.Random) -> None:
    _kill([rng.choice(list(host.workers().values()))])
    await asyncio.sleep(rng.uniform(0, 0.008))  # anywhere in its recovery
    host.send_signal(signal.SIGKILL)


async def a_worker_then_everybody(host: KeptHost, rng: random.Random) -> None:
    _kill([rng.choice(list(host.workers().values()))])
    await asyncio.sleep(rng.uniform(0, 0.008))
    _kill(_everybody(host))
    await host.nothing_left()


async def everybody_while_a_worker_hangs(host: KeptHost, rng: random.Random) -> None:
    _kill([rng.choice(list(host.workers().values()))], signal.SIGSTOP)
    await asyncio.sleep(rng.uniform(0.3, 0.46))  # around the moment at which the supervisor finds out
    _kill(_everybody(host))
    await host.nothing_left()


async def everybody_and_the_next_two_starts(host: KeptHost, rng: random.Random) -> None:
    await everybody_at_once(host, rng)
    for _ in range(2):
        await host.wait()
        await host.relaunch()
        await host.log("requests of an earlier start")  # it has just moved them to its own ledger
        await everybody_at_once(host, rng)


async def endure(server: NatsServer, directory: Path, fault: Fault, times: int, rate: float = 100) -> Report:
    """So many faults under load, each followed by a start. Nobody is silent, and nothing runs twice."""
    rng, record = random.Random(times), directory / "runs"
    lasting = [5, 5, 5, 50, 200]
    async with (
        KeptHost(directory, nats=server.url, handlers={"work": "work"}, sections=WORKERS) as host,
        Router(server.url) as router,
    ):
        async with router.load(
            "work",
            lambda number: {"sleep_ms": lasting[number % 5], "record": str(record)},
            rate=rate,
            deadline=20,
        ) as load:
            for _ in range(times):
                await load.sent(rng.randrange(40, 80))
                await fault(host, rng)
                await host.wait()
                await host.restart()
        report = load.report()
        runs = Counter(record.read_text().split()[::2])
        assert not report.silent, report
        assert not report.late, report
        assert set(report.words) <= {"worker died:"}, report
        assert runs.most_common(1)[0][1] == 1
        # of what died nothing need be on record: the kill may have come between its beginning and its first line
        assert all(r.id in runs for r in report.requests if r.verdict is Verdict.COMPLETE)
        assert not report.no_responders, report
    return report
