"""The host's shared queue at work: nobody waits at a busy worker beside an idle one, and what waits expires on time."""

from __future__ import annotations

from pathlib import Path

from tests.support.factories import StartHost
from tests.support.router import Router, Verdict

HANDLERS: dict[str, str | dict[str, object]] = {
    "work": "work",
    "thread": "work_sync",
    "narrow": {"target": "work", "concurrency": 1},
}
ONE_SLOT = {"workers": {"count": 1, "concurrency": 1, "backlog": 400}}
TWO_SLOTS = {"workers": {"count": 2, "concurrency": 1, "backlog": 200}}

SHUTS_DOWN = """
import os
import socket


def shut_down(task):
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            end = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with end:
            if end.family == socket.AF_UNIX and end.type & 15 == socket.SOCK_SEQPACKET:
                end.shutdown(socket.SHUT_RDWR)
"""


async def test_a_queue_that_a_handler_shuts_down_is_made_anew_for_all_workers(
    start_host: StartHost, router: Router
) -> None:
    handlers: dict[str, str | dict[str, object]] = {"shut": "app:shut_down", **HANDLERS}
    workers = {"count": 2, "concurrency": 2}
    host = await start_host(handlers=handlers, modules={"app": SHUTS_DOWN}, sections={"workers": workers})
    before = host.workers()
    async with router.load("work", {"sleep_ms": 20}, rate=150, deadline=8) as load:
        await load.sent(20)
        await router.send("shut", deadline=8)
        await load.sent(100)
    # what ran in a worker that ended is tried again
    assert not load.report().silent, load.report()
    await host.log("the shared queue of this host: it is made anew")
    for slot, pid in before.items():
        await host.refilled(slot, pid)
    async with router.load("work", {"sleep_ms": 20}, rate=150, deadline=8) as load:
        await load.sent(80)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report


async def test_a_task_does_not_wait_at_a_busy_worker_while_another_is_idle(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=TWO_SLOTS)
    long = await router.send("work", {"sleep_ms": 3000})
    await host.running(1)
    # by a queue group alone, every second one would wait for the long task
    for _ in range(30):
        reply = await router.request("work", {"sleep_ms": 5})
        assert reply.verdict is Verdict.COMPLETE
        assert not long.replies
    assert (await router.reply(long)).verdict is Verdict.COMPLETE


async def test_what_waits_is_run_in_the_order_of_its_arrival(start_host: StartHost, router: Router) -> None:
    await start_host(handlers=HANDLERS, sections=ONE_SLOT)
    requests = [await router.send("thread", {"sleep_ms": 10}, deadline=20) for _ in range(50)]
    replies = [await router.reply(r) for r in requests]
    assert [r.at for r in replies] == sorted(r.at for r in replies)


async def test_what_waits_at_the_only_worker_runs_there_whatever_its_size(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=ONE_SLOT)
    requests = [
        await router.send("work", {"fill": "x" * (9000 if number % 3 else 9)}, deadline=20)
        for number in range(300)  # more than a worker remembers ready to run
    ]
    for request in requests:
        assert (await router.reply(request)).json()["id"] == request.id
        assert len(request.replies) == 1
    counts = {"completed": 0, "refused": 0}
    # the worker tells at its next heartbeat; each look is a process
    while counts["completed"] + counts["refused"] < 300:
        (counts,) = (worker["counts"] for worker in (await host.status())["workers"])
    assert (counts["received"], counts["completed"], counts["refused"]) == (300, 300, 0)
    assert counts["lent"] == counts["pulled"] > 0


async def test_what_waits_too_long_is_refused_before_its_deadline(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, sections=TWO_SLOTS)
    running = [await router.send("work", {"sleep_ms": 5000}, deadline=20) for _ in range(2)]
    await host.running(2)
    waiting = [await router.send("work", {"sleep_ms": 5}, deadline=2) for _ in range(40)]
    for request in waiting:
        reply = await router.reply(request)
        assert (reply.verdict, reply.word) == (Verdict.ERROR, "deadline exceeded:")
        assert 0 <= request.deadline - reply.wall <= 0.4
    for request in running:
        assert (await router.reply(request)).verdict is Verdict.COMPLETE
    status = await host.status()
    assert sum(w["counts"]["lent"] for w in status["workers"]) >= 40


async def test_a_route_with_a_limit_of_its_own_keeps_it_and_does_not_stand_in_front_of_others(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    record = tmp_path / "runs"
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 2, "concurrency": 8, "backlog": 200}})
    narrow = [await router.send("narrow", {"sleep_ms": 200, "record": str(record)}, deadline=30) for _ in range(12)]
    await router.barrier()
    for _ in range(20):
        reply = await router.request("work", {"sleep_ms": 5})
        assert reply.verdict is Verdict.COMPLETE
    running = [t for w in (await host.status())["workers"] for t in w["tasks"] if t["route"] == "narrow"]
    assert len(running) <= 2
    replies = [await router.reply(r) for r in narrow]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}
    spent = max(r.at for r in replies) - narrow[0].sent
    assert spent >= 6 * 0.2  # 12 tasks, two at a time


async def test_a_flood_of_large_requests_on_a_hanging_worker_loses_none(start_host: StartHost, router: Router) -> None:
    """The server would cut a consumer that does not read; it is taken out of the group before that."""
    handlers = {"work": "work", "block": "block_loop"}
    host = await start_host(handlers=handlers, sections={"workers": {"backlog": 2000}})
    payload = b'{"sleep_ms": 1, "pad": "' + b"x" * 27_000 + b'"}'
    async with router.load("work", payload, rate=250, deadline=20) as load:
        await load.sent(50)
        hanging = await router.send("block", {"block_ms": 4000}, deadline=20)
        await host.log("goes on after hanging")
        await load.sent(50)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
