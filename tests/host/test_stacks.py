"""`ajhost stacks` shows what running tasks are doing; `ajhost recycle` replaces workers in order."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from tests.support.factories import Enter, NewHost
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

SOURCE = """
import asyncio
import threading
import time

from ajhost import Task

GATE = threading.Event()


async def waits_for_a_lock() -> None:
    async with asyncio.Lock() as lock:
        await asyncio.sleep(600)  # the lock's owner


async def outer(task: Task) -> None:
    await asyncio.gather(waits_for_a_lock())


async def chained(task: Task) -> None:
    await waits_for_a_lock()


def in_a_thread(task: Task) -> None:
    GATE.wait(600)


async def blocks(task: Task) -> None:
    time.sleep(8)


async def quick(task: Task) -> str:
    return "done"
"""
HANDLERS = {name: f"busy:{name}" for name in ("outer", "chained", "in_a_thread", "blocks", "quick")}


def _host(new_host: NewHost, count: int = 1) -> Host:
    sections = {"workers": {"count": count, "kill_grace": 30.0, "drain_timeout": 1.0}}
    return new_host(handlers=HANDLERS, modules={"busy": SOURCE}, sections=sections)


async def test_a_stuck_await_is_shown_down_to_what_it_waits_for(
    new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host))
    task = await router.send("chained", deadline=60)
    await host.running(1)
    shown = await host.command("stacks", task.id)
    assert shown.status == 0, shown
    assert f"task {task.id} (type chained, route 'chained', try " in shown.stdout
    chain = [line.strip() for line in shown.stdout.splitlines() if "busy.py" in line or "await " in line]
    assert [line.rpartition(" in ")[2] for line in chain if " in " in line] == [
        "chained",
        "waits_for_a_lock",
    ]
    assert "await asyncio.sleep(600)  # the lock's owner" in chain
    assert "<Future pending" in shown.stdout
    assert "ajhost/roles" not in shown.stdout


async def test_a_stuck_thread_is_shown_where_it_stands(new_host: NewHost, enter: Enter, router: Router) -> None:
    host = await enter(_host(new_host))
    thread = await router.send("in_a_thread", deadline=60)
    other = await router.send("outer", deadline=60)
    await host.running(2)
    shown = await host.command("stacks")
    assert "in a thread:" in shown.stdout
    assert "GATE.wait(600)" in shown.stdout
    assert {thread.id, other.id} <= set(shown.stdout.split())
    assert (await router.request("quick")).verdict is Verdict.COMPLETE


async def test_a_worker_that_hangs_is_shown_from_c_and_when_it_is_killed_in_the_log(
    new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host, count=2))
    task = await router.send("blocks", deadline=60)
    await host.log("hangs")
    for arguments in ((), (task.id,), ("--worker", "0"), ("--worker", "1")):
        shown = await host.command("stacks", *arguments)
        if "no task runs" not in shown.stderr:
            assert shown.status == 0, shown
            assert "hangs: it does not answer" in shown.stdout
            assert f"task {task.id} (type blocks) runs for " in shown.stdout
            assert shown.stdout.rstrip().endswith("in blocks")
            assert "/ajhost/roles/" not in shown.stdout
    assert (await host.command("stacks", "nobody")).stderr.strip() == "no task 'nobody' runs on this host"


async def test_what_is_not_there_is_told(nats_server: NatsServer, new_host: NewHost, enter: Enter) -> None:
    host = await enter(_host(new_host))
    for arguments, text in (
        (("stacks",), "no task runs"),
        (("stacks", "--all"), "no task runs"),
        (("stacks", "nobody"), "no task 'nobody' runs on this host"),
        (("stacks", "--worker", "7"), "no worker lives in slot 7"),
        (("recycle", "7"), "no worker lives in slot 7"),
    ):
        told = await host.command(*arguments)
        assert (told.status, told.stderr.strip()) == (1, text), told


async def test_recycled_workers_are_replaced_without_a_task_that_notices(
    new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host, count=2))
    before = host.workers()
    async with router.load("quick", rate=100) as load:
        assert (await host.command("recycle", "1")).stdout.strip() == "being replaced: the worker of slot 1"
        # one that leaves and one that starts are not replaced once more
        assert (await host.command("recycle", "1")).stdout.strip() == "being replaced: the worker of slot 1"
        while host.workers().get(1) in (before[1], None):  # noqa: ASYNC110  # processes are looked at
            await asyncio.sleep(0.02)
        assert host.workers()[0] == before[0]
        why = (await host.status())["supervisor"]["last_replaced"]
        assert re.fullmatch(r"worker 1 \(pid \d+\): an operator asked for it", why)
        assert f" ago: {why}\n" in (await host.command("status")).stdout
        assert (await host.command("recycle")).status == 0
        while set(host.workers().values()) & set(before.values()) or len(host.workers()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert {request.replies[0].verdict for request in load.requests} == {Verdict.COMPLETE}


async def test_what_a_task_is_doing_at_its_deadline_is_logged_once_a_minute_for_each_route(
    new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host, count=2))
    late = [await router.send(route, deadline=3) for route in ("chained", "in_a_thread") * 3]
    await router.settled(late)
    for task in late:
        assert (await router.reply(task)).word == "deadline exceeded:"
        assert not task.is_late
    for route, line in (("chained", "await asyncio.sleep(600)"), ("in_a_thread", "GATE.wait(600)")):
        logged = await host.log(f"route '{route}': at its deadline, task ")
        assert any(task.id in logged.text for task in late)
        await host.log(line)
        assert len(host.output.having(f"route '{route}': at its deadline")) == 1
    assert host.log_text().count("<Future pending") == 1, "it was cancelled before it was looked at"
    assert len({re.sub(r"[0-9.]+ s", "", task.replies[0].text) for task in late}) == 2
    assert all(len(task.replies) == 1 for task in late)


async def test_a_worker_that_hangs_at_a_deadline_writes_its_stacks(
    new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host))
    task = await router.send("blocks", deadline=2)
    await host.running(1)
    assert (await router.reply(task)).word == "deadline exceeded:"
    await host.log("and a task of it is at its deadline: its stacks follow")
    await host.log("in blocks")


async def test_an_import_that_takes_long_is_shown_and_goes_on(
    nats_server: NatsServer, tmp_path: Path, new_host: NewHost
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = SOURCE + f"open({str(gate)!r}).read()  # the import waits\n"
    host = _host(new_host)
    host.write_module("busy", source)
    await host.launch()
    try:
        writer = await asyncio.to_thread(open, gate, "w")
        for _ in range(2):
            shown = await host.command("stacks")
            assert shown.status == 0, shown
            assert "imports the handlers" in shown.stdout
            assert "busy.py" in shown.stdout
            assert "ajhost/roles" not in shown.stdout
        writer.close()
        await host.ready()
        assert (await host.command("stacks")).stderr == "no task runs\n"
        assert await host.terminate() == 0
    finally:
        await host.destroy()
