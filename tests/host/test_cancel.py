"""`ajhost cancel`: the router has its answer at once, and then the task is cancelled, whoever has it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from ajhost.roles.control_client import control
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Request, Router, Verdict

HANDLERS = {
    "work": "work",
    "clean_up": "clean_up_long",
    "stuck": "stuck_thread",
    "block": "block_loop",
}


def _host(tmp_path: Path, server: NatsServer, **workers: object) -> Host:
    return Host(tmp_path, nats=server.url, handlers=HANDLERS, sections={"workers": {"count": 1} | workers})


async def _cancel(host: Host, request: Request, *options: str) -> int:
    return (await host.command("cancel", request.id, *options)).status


async def test_a_task_that_runs_is_answered_at_once_and_then_cancelled(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with _host(tmp_path, nats_server) as host, Router(nats_server.url) as router:
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


async def test_a_task_that_waits_is_answered_and_never_run(nats_server: NatsServer, tmp_path: Path) -> None:
    record = tmp_path / "runs"
    async with _host(tmp_path, nats_server, concurrency=1) as host, Router(nats_server.url) as router:
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
    nats_server: NatsServer, tmp_path: Path, kind: str, payload: dict[str, object]
) -> None:
    async with _host(tmp_path, nats_server, drain_timeout=1.0) as host, Router(nats_server.url) as router:
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


async def test_tasks_cancelled_at_random_moments_under_load_and_kills_have_one_answer_each(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        _host(tmp_path, nats_server, count=2, concurrency=4) as host,
        Router(nats_server.url) as router,
    ):
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
