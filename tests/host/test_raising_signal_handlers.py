"""A signal handler of the application's that raises can hit the worker's own code, between any two instructions."""

from __future__ import annotations

import random

import pytest

from tests.support.factories import StartHost
from tests.support.router import Router, Verdict

HANDLERS = """
import asyncio
import signal

class Late(Exception):
    pass

def ring(number, frame):
    raise Late("the alarm of a handler")

async def alarm(task):
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, *task.json()["seconds"])
    return "set"

async def quick(task):
    return task.payload

async def slow(task):
    await asyncio.sleep(0.05)
    return task.payload

def thread(task):
    return task.payload
"""


@pytest.mark.parametrize("alarms", [15, pytest.param(60, marks=pytest.mark.long)])
async def test_an_alarm_that_raises_anywhere_leaves_no_request_unanswered(
    start_host: StartHost, router: Router, alarms: int
) -> None:
    rng = random.Random(1)
    host = await start_host(
        modules={"shop": HANDLERS},
        handlers={name: f"shop:{name}" for name in ("alarm", "quick", "slow", "thread")},
        sections={"workers": {"count": 2, "concurrency": 8, "backlog": 5000}},
    )
    async with (
        router.load("quick", rate=400, deadline=6) as quick,
        router.load("slow", rate=100, deadline=6) as slow,
        router.load("thread", rate=50, deadline=6) as thread,
    ):
        for _ in range(alarms):
            await router.request("alarm", {"seconds": [rng.uniform(0.0001, 0.02), 0]}, deadline=6)
            await quick.sent(10)
    reports = [load.report() for load in (quick, slow, thread)]
    for report in reports:
        assert not report.silent, f"{report}\n{host.log_text()}"
        assert not report.late, f"{report}\n{host.log_text()}"
        words = {"handler error:", "worker died:", "host error:", "deadline exceeded:"}
        assert report.words.keys() <= words, report
        assert report.verdicts[Verdict.COMPLETE] > len(report.requests) / 2, report
    # an alarm that hits asyncio's own code can cost a handler its wake-up, and then its deadline comes
    assert sum(report.words["deadline exceeded:"] for report in reports) <= 2 * alarms, reports


async def test_a_worker_whose_own_code_is_hit_again_and_again_is_replaced(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(
        modules={"shop": HANDLERS},
        handlers={name: f"shop:{name}" for name in ("alarm", "quick")},
        sections={"workers": {"count": 2}},
    )
    before = set(host.workers().values())
    await router.request("alarm", {"seconds": [0.001, 0.001]}, deadline=6)
    async with router.load("quick", rate=100, count=300, deadline=8) as load:
        pass
    report = load.report()
    assert not report.silent, f"{report}\n{host.log_text()}"
    assert not report.late
    assert set(host.workers().values()) - before
