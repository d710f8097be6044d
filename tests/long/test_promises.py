"""The promises at full size: minutes, not seconds. `scripts/test -m long tests/long` runs them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ajhost.adapters.linux.proc import resident_bytes
from tests.support.factories import StartHost
from tests.support.load_generator import ajload, missing
from tests.support.nats import NatsServer
from tests.support.router import Report, Router, Verdict

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(missing() is not None, reason=f"the load generator cannot be built: {missing()}"),
]
HANDLERS = {"work": "work", "block": "block_loop"}
LOADS = {
    "300 a second": ["-r", "300", "--sleep", "5:90,200:10"],
    "1500 a second": ["-r", "1500", "--sleep", "5:90,200:10"],
    "backlog": ["-r", "600", "--sleep", "50:1"],
    "saturated": ["-c", "256"],
}
PER_SECOND = {"300 a second": 300, "1500 a second": 1500, "backlog": 600, "saturated": 22_000}
KILLS = 80


def _nothing_lost(figures: dict[str, Any]) -> None:
    assert figures["timeouts"] == 0, figures
    assert figures["no_responders"] == 0, figures
    assert figures["late"] == 0, figures
    assert figures["bad_body"] == 0, figures


@pytest.mark.parametrize("load", LOADS)
async def test_eighty_kills_at_random_instants_lose_nothing(
    nats_server: NatsServer, start_host: StartHost, load: str
) -> None:
    rng = random.Random(load)
    seconds = KILLS * 0.32 + 3
    count = int(seconds * PER_SECOND[load])
    workers = {"count": 4, "backlog": 4000, "concurrency": 8 if load == "backlog" else 16}
    host = await start_host(handlers=HANDLERS, sections={"workers": workers})
    arguments = [
        "-t",
        "work",
        "-n",
        str(count),
        "-d",
        "20",
        "--timeouts-ok",
        "--no-responders-ok",
        "--echo-id",
    ]
    running = asyncio.create_task(ajload(nats_server.url, *arguments, *LOADS[load], timeout=seconds * 4))
    kills = 0
    while not running.done():
        await asyncio.wait({running}, timeout=rng.uniform(0.02, 0.6))
        if living := list(host.workers().values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(living), signal.SIGKILL)
                kills += 1
    figures = await running
    print(f"\n{load}: {kills} kills, {figures}")
    assert kills >= KILLS * 0.6
    _nothing_lost(figures)


async def test_a_loop_blocked_for_10_s_delays_nothing_but_what_it_had_started(
    nats_server: NatsServer, tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 4}})
    arguments = ["-t", "work", "-r", "1500", "-n", "22000", "--sleep", "5:90,200:10", "-d", "30"]
    trace = tmp_path / "trace.csv"
    running = asyncio.create_task(ajload(nats_server.url, *arguments, "--trace", str(trace), timeout=120))
    await asyncio.wait({running}, timeout=2)
    hanging = await router.send("block", {"block_ms": 10_000}, deadline=30)
    await host.log("goes on after hanging", timeout=30)
    figures = await running
    _nothing_lost(figures)
    late = [line for line in trace.read_text().splitlines()[1:] if float(line.split(",")[3]) > 1000]
    print(f"\n{len(late)} of {figures['sent']} waited longer than 1 s; {figures}")
    assert len(late) <= 16  # one worker's slots
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE


async def test_a_hundred_reloads_at_1500_a_second_lose_nothing(nats_server: NatsServer, start_host: StartHost) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 2}})
    arguments = ["-t", "work", "-r", "1500", "-n", "150000", "--sleep", "3:1", "-d", "20"]
    running = asyncio.create_task(ajload(nats_server.url, *arguments, timeout=400))
    for _ in range(100):
        assert (await host.reload()).status == 0
        assert not running.done()
    figures = await running
    print(f"\n100 reloads: {figures}")
    _nothing_lost(figures)
    assert figures["aj_error"] == 0


async def test_fifty_thousand_requests_at_once_are_answered_or_refused(start_host: StartHost, router: Router) -> None:
    sections = {"workers": {"count": 2, "concurrency": 8, "backlog": 64}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    began = time.monotonic()
    requests = [await router.send("work", {"sleep_ms": 20}, deadline=60) for _ in range(50_000)]
    await router.settled(requests)
    report = Report(tuple(requests))
    resident = [resident_bytes(pid) >> 20 for pid in host.workers().values()]
    print(f"\n{report} in {time.monotonic() - began:.1f} s, workers' resident MiB {resident}")
    assert report.verdicts.keys() == {Verdict.COMPLETE, Verdict.ERROR}, report
    assert report.words.keys() == {"overloaded:"}, report
    assert max(resident) < 80
