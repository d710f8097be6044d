"""Workers that die: what had started is answered, what had not runs elsewhere, and the slot serves again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ajhost.core.timings import RENEW_FIRST
from tests.support import processes
from tests.support.factories import Enter, NewHost, StartHost, StartRouter
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict
from tests.support.waiting import until

HANDLERS = {
    "echo": "echo",
    "work": "work",
    "segfault": "segfault",
    "exit": "exit_now",
    "kill": "kill_self",
    "fork": "fork_children",
}


@pytest.mark.parametrize(
    ("route", "payload", "how"),
    [("segfault", {}, "SIGSEGV"), ("exit", {"status": 3}, "exit status 3"), ("kill", {}, "SIGKILL")],
)
async def test_a_task_that_kills_its_worker_is_answered_and_the_slot_serves_again(
    start_host: StartHost, router: Router, route: str, payload: dict[str, int], how: str
) -> None:
    host = await start_host(handlers=HANDLERS)
    before = host.workers()
    reply = await router.request(route, payload)
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "worker died:")
    assert how in reply.text
    await host.log("serves, generation 1", since=len(host.output.having("")) - 1)
    after = host.workers()
    assert after.keys() == before.keys()
    assert sum(after[slot] != before[slot] for slot in before) == 1
    assert (await router.request("echo", b"alive")).body == b"alive"


async def test_five_kills_under_load_lose_nothing(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 4}})
    async with router.load("work", {"sleep_ms": 20}, rate=300, deadline=10) as load:
        await load.sent(100)
        for slot in (0, 1, 2, 3, 0):
            before = host.workers()
            killed = host.kill(slot)
            await processes.gone(killed)
            while host.workers().get(slot, killed) == killed:
                await load.sent(1)
            others = {s: p for s, p in host.workers().items() if s != slot}
            assert others == {s: p for s, p in before.items() if s != slot}
            await load.sent(100)
    report = load.report()
    assert not report.silent, report
    assert not report.no_responders, report
    assert not report.late, report
    assert set(report.words) <= {"worker died:"}, report
    assert report.verdicts[Verdict.COMPLETE] > 400


async def test_answers_for_the_dead_leave_within_milliseconds(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS)
    delays = []
    for _ in range(10):
        request = await router.send("work", {"sleep_ms": 5000})
        pid = await _busy_worker(host)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        reply = await router.reply(request)
        assert reply.word == "worker died:"
        delays.append(reply.at - began)
    # the quickest: a busy machine delays some of them, an interval at which somebody looks most of them
    assert min(delays) < 0.05, delays


async def test_with_one_worker_killed_over_and_over_nobody_is_told_no_responders(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 1, "backlog": 2000}})
    async with router.load("work", {"sleep_ms": 2}, rate=300, deadline=20) as load:
        for _ in range(6):
            await load.sent(60)
            killed = host.kill(0)
            while host.workers().get(0, killed) == killed:
                await load.sent(1)
    report = load.report()
    assert not report.no_responders, report
    assert not report.silent, report
    assert set(report.words) <= {"worker died:"}, report


async def test_a_handlers_children_change_nothing_and_end_with_their_worker(
    start_host: StartHost, router: Router
) -> None:
    await start_host(handlers=HANDLERS, sections={"workers": {"count": 1}})
    made = (await router.request("fork", {"count": 2})).json()
    async with router.load("work", {"sleep_ms": 2}, rate=200, deadline=20) as load:
        await load.sent(50)
        os.kill(made["pid"], signal.SIGKILL)
        await load.sent(100)
    report = load.report()
    assert not report.silent, report
    assert not report.no_responders, report
    for child in made["children"]:
        await processes.gone(child)


FAMILY = """
import os, subprocess, sys, time

KEPT = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
NESTED = (
    "import subprocess, sys, time\\n"
    "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'], start_new_session=True)\\n"
    "print(inner.pid, flush=True)\\n"
    "time.sleep(3600)\\n"
)

async def family(task):
    outer = subprocess.Popen(
        [sys.executable, "-c", NESTED], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    inner = int(outer.stdout.readline())
    return {"pid": os.getpid(), "ends": [outer.pid, inner], "of_the_template": KEPT.pid}
"""


async def test_whatever_a_dead_worker_had_started_ends_with_it_and_nobody_elses_does(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers={**HANDLERS, "family": "family:family"}, modules={"family": FAMILY})
    made: dict[int, dict[str, Any]] = {}
    while len(made) < 2:
        one = (await router.request("family", {})).json()
        made.setdefault(one["pid"], one)
        made[one["pid"]]["ends"] += one["ends"]
    first, second = made.values()
    os.kill(first["pid"], signal.SIGKILL)
    for pid in first["ends"]:
        await processes.gone(pid)
    await host.log("that a dead worker had left: SIGKILL")
    # the next worker serves, and what belongs to the others is as it was
    await until(lambda: len(host.workers()) == 2)
    assert (await router.request("echo", b"alive")).body == b"alive"
    assert all(processes.info(pid) is not None for pid in [*second["ends"], first["of_the_template"]])
    assert second["pid"] in host.workers().values()


async def test_a_dead_template_is_followed_by_a_new_generation_and_workers_live_on(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS)
    async with router.load("work", {"sleep_ms": 5}, rate=200) as load:
        await load.sent(20)
        os.kill(host.template(), signal.SIGKILL)
        await host.log("the template died")
        await host.log("serves, generation 2")
        await load.sent(200)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report


async def test_templates_that_die_one_after_the_other_are_replaced_more_and_more_slowly(start_host: StartHost) -> None:
    host = await start_host()
    for _ in range(4):
        lines = len(host.output.lines)
        os.kill(host.template(), signal.SIGKILL)
        died = await host.log("the template died", since=lines)
        serves = await host.log(lambda line: "worker 1 " in line and "serves" in line, since=lines)
    assert serves.at - died.at >= 4 * RENEW_FIRST


async def test_a_template_that_dies_while_the_host_waits_for_its_server_is_followed_by_a_new_one(
    tmp_path: Path, new_host: NewHost, enter: Enter, start_router: StartRouter
) -> None:
    server = NatsServer(tmp_path)
    # a thread, since the supervisor tells of it when it has heard that the template is ready
    source = (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "from tests.support.handlers import echo\n"
    )
    host = new_host(nats=server.url, handlers={"echo": "threaded:echo"}, modules={"threaded": source})
    await host.launch()
    await host.log("the imports left something behind: the thread")
    await host.log("waiting for NATS")
    template = host.template()
    os.kill(template, signal.SIGKILL)
    await processes.gone(template)
    await enter(server)
    router = await start_router(server.url)
    await host.ready()
    await host.log("the template died")
    assert (await router.request("echo", b"alive")).body == b"alive"
    assert await host.terminate() == 0
    await host.nothing_left()


async def test_a_second_host_on_the_same_directory_exits_70_and_says_who_runs(host: Host) -> None:
    result = await host.command("run")
    assert result.status == 70
    assert str(host.pid) in result.stderr + result.stdout


async def _busy_worker(host: Host) -> int:
    while True:
        for worker in (await host.status())["workers"]:
            if worker["tasks"]:
                return int(worker["pid"])
        await asyncio.sleep(0.01)
