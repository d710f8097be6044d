"""Handlers that close descriptors which are the host's: the host takes nothing from whoever gets the number next."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.factories import StartHost
from tests.support.router import Router, Verdict

SOURCE = """
import os, socket

def sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                yield int(name)
        except OSError:
            continue

async def close_near(task):
    for number in [n for n in sockets() if n < 1000]:
        os.close(number)
    ends = [end for _ in range(8) for end in socket.socketpair()]
    KEPT.extend(ends)
    for here, there in zip(ends[::2], ends[1::2]):
        here.send(b"x" * 64)
        there.send(b"y" * 64)

def look(task):
    read = []
    for end in KEPT:
        end.setblocking(False)
        try:
            read.append(end.recv(4096).decode())
        except BlockingIOError:
            read.append("nothing")
    return [text for text in read if text not in ("x" * 64, "y" * 64)]

async def close_all(task):
    os.closerange(3, 100_000) if task.json()["range"] else [os.close(number) for number in list(sockets())]

KEPT = []
"""
HANDLERS = {"echo": "echo", "work": "work"} | {name: f"app:{name}" for name in ("close_near", "look", "close_all")}


async def test_what_is_opened_under_a_number_that_was_the_hosts_keeps_its_bytes(
    start_host: StartHost, router: Router
) -> None:
    await start_host(handlers=HANDLERS, modules={"app": SOURCE}, sections={"workers": {"count": 1, "concurrency": 2}})
    assert (await router.request("close_near")).verdict is Verdict.COMPLETE
    # more at once than there are slots: they pass through the shared queue
    async with router.load("work", {"sleep_ms": 5}, rate=400, count=60, deadline=5) as load:
        pass
    assert load.report().verdicts == {Verdict.COMPLETE: 60}
    assert (await router.request("look")).json() == []


@pytest.mark.parametrize("range", [False, True], ids=["its sockets", "everything"])
async def test_a_worker_without_its_descriptors_is_replaced_and_every_request_is_answered_in_time(
    start_host: StartHost, router: Router, range: bool
) -> None:
    host = await start_host(handlers=HANDLERS, modules={"app": SOURCE}, sections={"workers": {"concurrency": 2}})
    before = host.workers()
    async with router.load("work", {"sleep_ms": 20}, rate=150, deadline=3) as load:
        await load.sent(20)
        closing = await router.send("close_all", {"range": range}, deadline=3)
        await load.sent(150)
    report = load.report()
    assert not report.silent, report
    assert not report.late, report
    assert report.no_responders == 0, report
    assert (await asyncio.wait_for(closing.first, 4)).verdict in (Verdict.COMPLETE, Verdict.ERROR)
    (slot,) = [slot for slot, pid in before.items() if pid != host.workers().get(slot)]
    await host.refilled(slot, before[slot])
    async with router.load("work", {"sleep_ms": 20}, rate=150, count=40, deadline=5) as load:
        pass
    assert load.report().verdicts == {Verdict.COMPLETE: 40}, load.report()
