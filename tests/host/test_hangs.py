"""Handlers that do not stop: blocked loops, a held GIL, swallowed cancellations, stuck threads, stopped processes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.factories import NewHost, StartHost
from tests.support.process_log import Line
from tests.support.router import Report, Request, Router, Verdict
from tests.support.waiting import until

HANDLERS: dict[str, str | dict[str, object]] = {
    "echo": "echo",
    "work": "work",
    "block": "block_loop",
    "gil": "hold_gil",
    "kernel": "wait_in_the_kernel",
    "swallow": "swallow_cancellation",
    "tidy": "clean_up_long",
    "stuck": "stuck_thread",
    "quick": {"target": "work", "timeout": 0.5},
}


def _pid(line: Line) -> int:
    """The worker that a line of the log is about."""
    return int(line.text.partition("(pid ")[2].partition(")")[0])


def _waited_for(pid: int, report: Report) -> list[Request]:
    """The requests that were answered late by this worker: on a slow machine others may be late as well."""
    return [r for r in report.requests if r.latency > 1.0 and r.replies[0].json()["pid"] == pid]


async def test_a_deadline_answers_between_0_and_300_ms_before_the_headers_second(
    start_host: StartHost, router: Router
) -> None:
    await start_host(handlers=HANDLERS)
    requests = [await router.send(route, {"sleep_ms": 60_000}, deadline=3) for route in ("work", "swallow", "stuck")]
    for request in requests:
        reply = await router.reply(request)
        assert (reply.verdict, reply.word) == (Verdict.ERROR, "deadline exceeded:")
        assert 0 <= request.deadline - reply.wall <= 0.3, request
    reply = await router.request("quick", {"sleep_ms": 60_000}, deadline=30)
    assert reply.word == "deadline exceeded:"


async def test_a_route_timeout_is_kept(start_host: StartHost, router: Router) -> None:
    await start_host(handlers=HANDLERS)
    request = await router.send("quick", {"sleep_ms": 60_000}, deadline=30)
    reply = await router.reply(request)
    assert 0.45 <= reply.at - request.sent < 15, "its own half second, and not the header's 30"


@pytest.mark.parametrize("route", ["block", "gil", "kernel"])
async def test_a_hanging_worker_is_left_out_and_goes_on_unharmed(
    tmp_path: Path, start_host: StartHost, router: Router, route: str
) -> None:
    record = tmp_path / "runs"
    host = await start_host(handlers=HANDLERS)
    before = host.workers()
    async with router.load("work", {"sleep_ms": 2, "record": str(record)}, rate=100, deadline=20) as load:
        await load.sent(20)
        hanging = await router.send(route, {"block_ms": 1500}, deadline=20)
        pid = _pid(await host.log("hangs"))
        await router.reply(hanging)
        await host.log("goes on after hanging")
        await load.sent(100)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    # what was on the hanging worker had started there; all else ran elsewhere at once
    assert len(_waited_for(pid, report)) <= 16
    runs = record.read_text().split()[::2]
    assert len(runs) == len(set(runs)) == len(report.requests)
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
    assert host.workers() == before


AGAIN = """
import asyncio, time


async def again(task):
    for _ in range(3):
        time.sleep(1.5)
        await asyncio.sleep(0.05)  # time to connect, and none for a heartbeat that tells so
    return "woke"
"""


async def test_a_worker_that_hangs_again_as_soon_as_it_has_connected_is_left_out_again(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS | {"again": "again:again"}, modules={"again": AGAIN})
    async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=20) as load:
        hanging = await router.send("again", {}, deadline=20)
        pid = _pid(await host.log("hangs"))
        await router.reply(hanging)
        await load.sent(50)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    # what it started in a moment awake waits for the next one; all else ran elsewhere
    assert len(_waited_for(pid, report)) <= 16
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE


async def test_a_worker_that_hangs_past_its_deadline_is_killed_with_its_stacks_in_the_log(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"kill_grace": 0.5}})
    request = await router.send("block", {"block_ms": 60_000}, deadline=3)
    reply = await router.reply(request)
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "deadline exceeded:")
    assert 0 <= request.deadline - reply.wall <= 0.3
    await host.log("block_loop")  # a frame of its stack
    await host.log("died: SIGKILL")
    await until(lambda: len(host.workers()) == 2)  # its replacement is forked after its death is told
    assert (await router.request("echo", b"alive")).body == b"alive"


async def test_a_swallowed_cancellation_or_a_stuck_thread_lets_a_replacement_take_over(
    new_host: NewHost, router: Router
) -> None:
    for route in ("swallow", "stuck"):
        async with new_host(
            handlers=HANDLERS, sections={"workers": {"count": 1, "kill_grace": 0.3, "drain_timeout": 2.0}}
        ) as host:
            old = host.workers()[0]
            async with router.load("work", {"sleep_ms": 5}, rate=100) as load:
                reply = await router.request(route, {"sleep_ms": 60_000}, deadline=2)
                assert reply.word == "deadline exceeded:"
                await host.log("is replaced")
                await processes.gone(old)
                await load.sent(20)
            report = load.report()
            assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, (route, report)


async def test_a_stopped_worker_is_replaced(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"kill_grace": 0.3}})
    async with router.load("work", {"sleep_ms": 2}, rate=300, deadline=5) as load:
        await load.sent(50)
        stopped = host.kill(0, signal.SIGSTOP)
        await processes.gone(stopped)
        await load.sent(50)
    report = load.report()
    assert not report.silent, report
    assert not report.no_responders, report


async def test_a_stopped_supervisor_judges_nobody_when_it_goes_on(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS)
    before = host.workers()
    async with router.load("work", {"sleep_ms": 2}, rate=100) as load:
        host.send_signal(signal.SIGSTOP)
        await load.sent(150)
        host.send_signal(signal.SIGCONT)
        await load.sent(100)
    assert load.report().verdicts == {Verdict.COMPLETE: len(load.requests)}
    assert host.workers() == before
    assert not host.output.having("hangs")


async def test_what_a_worker_refused_just_before_it_hung_is_answered(start_host: StartHost, router: Router) -> None:
    source = """
import asyncio, time
async def gather(task):
    time.sleep(0.25)
    await asyncio.sleep(0.5)
"""
    host = await start_host(
        handlers={**HANDLERS, "gather": "gathering:gather"},
        modules={"gathering": source},
        sections={"workers": {"count": 1, "concurrency": 2, "backlog": 2}},
    )
    # what comes in these 0.25 s is read at once: the refusals would leave after the next handler's first step
    gathering = await router.send("gather", {}, deadline=20)
    await host.running(1)
    hanging = await router.send("gil", {"block_ms": 5000}, deadline=20)
    requests = [await router.send("work", {"sleep_ms": 1}, deadline=3) for _ in range(20)]
    for request in requests:
        reply = await router.reply(request)
        assert request.deadline - reply.wall >= 0
    refused = [r for r in requests if r.replies[0].word == "overloaded:"]
    assert len(refused) == 18
    assert not hanging.replies
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
    await router.reply(gathering)


async def test_the_only_worker_hangs_and_its_requests_wait_for_the_next(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 1}})
    hanging = await router.send("block", {"block_ms": 6000}, deadline=20)
    await host.log("hangs")
    replies = await asyncio.gather(*(router.request("echo", b"x") for _ in range(20)))
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}
    assert not hanging.replies
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
