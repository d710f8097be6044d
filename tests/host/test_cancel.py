"""`ajhost cancel`: the router has its answer at once, and then the task is cancelled, whoever has it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from ajhost.ledger.layout import State
from ajhost.roles.control_client import control
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.router import Request, Router, Verdict
from tests.support.waiting import until

HANDLERS: dict[str, str | dict[str, object]] = {
    "work": "work",
    "clean_up": "clean_up_long",
    "stuck": "stuck_thread",
    "block": "block_loop",
    "limited": {"target": "work", "host_concurrency": 1},
}


async def _host(start_host: StartHost, **workers: object) -> Host:
    return await start_host(handlers=HANDLERS, sections={"workers": {"count": 1} | workers})


async def _cancel(host: Host, request: Request, *options: str) -> int:
    return (await host.command("cancel", request.id, *options)).status


async def test_a_task_that_runs_is_answered_at_once_and_then_cancelled(start_host: StartHost, router: Router) -> None:
    host = await _host(start_host)
    before = host.workers()
    task = await router.send("clean_up", {"cleanup_ms": 300}, deadline=25)
    other = await router.send("work", {"sleep_ms": 3000}, deadline=25)
    await host.running(2)
    assert await _cancel(host, task, "--reason", "a mistake") == 0
    reply = await router.reply(task)
    assert (reply.verdict, reply.text) == (Verdict.ERROR, "cancelled: a mistake")
    await host.log("asked for by user")
    await host.log(f"task {task.id}, which was running, is cancelled: a mistake")
    assert (await router.reply(other)).verdict is Verdict.COMPLETE
    assert host.workers() == before
    assert await _cancel(host, task) == 1
    assert len(task.replies) == 1
    odd = await host.command("cancel", task.id, "--reason", "caf\udce9")
    assert odd.stderr.startswith(f"no task {task.id!r} runs or waits"), odd
    long = await host.command("cancel", task.id, "--reason", "x" * 70_000)
    assert (long.status, long.stderr) == (
        1,
        "no request that this host knows, or one of more than 64 KiB\n",
    )


async def test_a_task_that_waits_is_answered_and_never_run(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    record = tmp_path / "runs"
    host = await _host(start_host, concurrency=1)
    first = await router.send("work", {"sleep_ms": 4000, "record": str(record)}, deadline=25)
    await host.running(1)
    waiting = [await router.send("work", {"record": str(record)}, deadline=25) for _ in range(3)]
    assert await _cancel(host, waiting[1], "--terminate") == 0
    reply = await router.reply(waiting[1])
    assert (reply.verdict, reply.text) == (Verdict.TERMINATE, "cancelled: by an operator")
    await router.settled([first, *waiting])
    ran = [line.split()[0] for line in record.read_text().splitlines()]
    assert ran == [first.id, waiting[0].id, waiting[2].id]


@pytest.mark.parametrize(("kind", "payload"), [("stuck", {}), ("block", {"block_ms": 15_000})])
async def test_a_thread_and_a_worker_that_hangs_hold_up_no_answer(
    start_host: StartHost, router: Router, kind: str, payload: dict[str, object]
) -> None:
    host = await _host(start_host, drain_timeout=1.0)
    pid = host.workers()[0]
    task = await router.send(kind, payload, deadline=12)
    await host.running(1)
    assert await _cancel(host, task) == 0
    reply = await router.reply(task)
    assert reply.text == "cancelled: by an operator"
    assert reply.wall < task.deadline - 1, "not at its deadline"
    await host.log(f"(pid {pid}) {'is replaced' if kind == 'stuck' else 'hangs'}")
    assert (await router.request("work", {}, deadline=10)).body
    assert len(task.replies) == 1


async def test_a_task_that_waits_for_a_permit_or_in_the_supervisors_ledger_is_cancelled_and_never_runs(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    record = tmp_path / "runs"
    host = await _host(start_host, concurrency=4)
    first = await router.send("limited", {"sleep_ms": 1500, "record": str(record)}, deadline=25)
    await host.running(1)
    waiting = await router.send("limited", {"record": str(record)}, deadline=25)
    await until(lambda: host.in_ledgers(State.QUEUED) == 1)
    assert await _cancel(host, waiting) == 0
    assert (await router.reply(waiting)).text == "cancelled: by an operator"
    await router.settled([first])
    # what the server had not confirmed would be sent again, on the next connection
    await until(lambda: not host.in_ledgers(State.ANSWERED, State.SENT))
    blocked = await router.send("block", {"block_ms": 5000}, deadline=25)
    await host.running(1)
    # they lie in the connection of the worker that hangs, so the supervisor has them until the next one pulls them
    second = await router.send("limited", {"sleep_ms": 3000, "record": str(record)}, deadline=25)
    moved = await router.send("limited", {"record": str(record)}, deadline=25)
    await host.running(2)
    assert await _cancel(host, moved) == 0
    assert (await router.reply(moved)).text == "cancelled: by an operator"
    await router.settled([blocked, second])
    assert [line.split()[0] for line in record.read_text().splitlines()] == [first.id, second.id]
    assert [len(r.replies) for r in (first, waiting, blocked, second, moved)] == [1] * 5


async def test_a_task_whose_worker_somebody_has_stopped_is_cancelled_or_dies_with_it_and_has_one_answer(
    start_host: StartHost, router: Router
) -> None:
    host = await _host(start_host)
    task = await router.send("work", {"sleep_ms": 20_000}, deadline=25)
    await host.running(1)
    ((slot, pid),) = host.workers().items()
    host.kill(slot, signal.SIGSTOP)
    done = await _cancel(host, task) == 0
    await host.refilled(slot, pid)
    reply = await router.reply(task)
    assert reply.text.startswith("cancelled:" if done else "worker died:")
    await router.settled([await router.send("work", {}, deadline=10)])
    assert len(task.replies) == 1


GREEDY = """
import asyncio, time

async def greedy(task):
    while True:
        time.sleep(0.05)
        await asyncio.sleep(0)
"""


async def test_a_worker_killed_as_soon_as_its_task_is_said_to_be_cancelled_has_sent_the_answer(
    start_host: StartHost, router: Router
) -> None:
    handlers = {"work": "work", "greedy": "greedy:greedy"}
    one = {"workers": {"count": 1}}
    host = await start_host(handlers=handlers, modules={"greedy": GREEDY}, sections=one)
    task = await router.send("work", {"sleep_ms": 20_000}, deadline=25)
    # between any two steps of its event loop the worker is held up
    greedy = await router.send("greedy", {}, deadline=25)
    await host.running(2)
    asked = {"ask": "cancel", "task": task.id, "terminate": False, "reason": "here"}
    assert (await asyncio.to_thread(control, host.runtime, 20.0, asked))[0]
    host.kill(0)
    await router.settled([task, greedy])
    assert [reply.text for reply in task.replies] == ["cancelled: here"]


async def test_tasks_cancelled_at_random_moments_under_load_and_kills_have_one_answer_each(
    start_host: StartHost, router: Router
) -> None:
    host = await _host(start_host, count=2, concurrency=4)
    await cancel_at_random(host, router, wanted=60, rate=120, every_kill=30)


async def cancel_at_random(
    host: Host, router: Router, *, wanted: int, rate: float, every_kill: int, seed: int = 11
) -> str:
    """Cancels so many tasks of a load, whatever they do just now, and kills a worker now and then; the figures.

    Each that was cancelled has exactly the answer that says so. Of the others nothing is silent, late or harmed but by
    the kills: each takes the tasks with it that ran in its worker.
    """
    rng = random.Random(seed)
    cancelled: list[Request] = []
    tried = kills = 0
    async with router.load("work", {"sleep_ms": 60}, rate=rate, deadline=20) as load:
        while len(cancelled) < wanted:
            tried += 1
            await load.sent(1)
            task = rng.choice(load.report().requests[-12:])
            asked = {"ask": "cancel", "task": task.id, "terminate": bool(tried % 2), "reason": "random"}
            done, _ = await asyncio.to_thread(control, host.runtime, 20.0, asked)
            if done:
                cancelled.append(task)
            if tried % every_kill == every_kill // 2 and (living := sorted(host.workers())):
                host.kill(rng.choice(living))
                kills += 1
    report = load.report()
    assert not report.silent, report
    assert not report.late, report
    assert kills
    for task in cancelled:
        assert [reply.text for reply in task.replies] == ["cancelled: random"], task
    assert report.words.keys() <= {"worker died:", "cancelled:"}, report
    assert report.words["cancelled:"] + sum(r.verdict is Verdict.TERMINATE for r in report.requests) >= wanted
    texts = Counter(r.replies[0].text for r in report.requests if r.verdict is not Verdict.COMPLETE)
    assert texts["cancelled: random"] == len(cancelled)
    assert report.words["worker died:"] <= kills * 4, "concurrency is 4"
    return (
        f"{len(report.requests)} tasks, {len(cancelled)} of {tried} cancelled, {kills} kills, "
        f"{report.words['worker died:']} died with their workers, {report.duplicates} answers too many"
    )
