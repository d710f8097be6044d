"""Signals of user code: children die as in a script, and what the host needs is put back or named."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.router import Router

HANDLERS = """
import asyncio, multiprocessing, os, signal, time

fork = multiprocessing.get_context("fork")

def sleep():
    time.sleep(60)

def on_signal(number, frame):
    pass

def end_children(task):
    how = task.json()["how"]
    if how == "pool":
        with fork.Pool(2) as pool:
            pool.map(abs, [1, 2])
        return {"exits": []}
    children = [fork.Process(target=sleep) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        os.kill(child.pid, getattr(signal, how))
    for child in children:
        child.join(10 if how != "SIGINT" else 0.1)
        while child.exitcode is None and how == "SIGINT":
            # in a script, too, CPython may forget one that comes while it begins to run after a fork
            os.kill(child.pid, signal.SIGINT)
            child.join(0.1)
    return {"exits": [child.exitcode for child in children]}

async def end_children_from_the_loop(task):
    return end_children(task)

async def take(task):
    signal.signal(getattr(signal, task.json()["signal"]), on_signal)
    return "taken"

async def sub_process(task):
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "sleep 0.3; exit 3")
    return await process.wait()

async def fork_on_loop(task):
    child = os.fork()
    if child == 0:
        return await end_as(task)
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        await asyncio.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])

def fork_in_thread(task):
    child = os.fork()
    if child == 0:
        return asyncio.run(end_as(task)) if task.json()["how"] != "await" else None
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def end_as(task):
    match task.json()["how"]:
        case "return":
            return "from the child"
        case "exit":
            raise SystemExit(7)
        case "raise":
            raise ValueError("in the child")
        case "await":
            await asyncio.sleep(0)
            return "from the child"

async def block(task):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return "blocked"

async def pid(task):
    return os.getpid()
"""
NAMES = (
    *("end_children", "end_children_from_the_loop", "take", "sub_process", "pid"),
    *("fork_on_loop", "fork_in_thread", "block"),
)


async def _host(start_host: StartHost, preload: bool = True, prefix: str = "") -> Host:
    return await start_host(
        modules={"shop": f"import signal\n{prefix}\n{HANDLERS}"},
        handlers={name: f"shop:{name}" for name in NAMES},
        sections={"workers": {"count": 1}, "python": {"preload": preload}},
    )


@pytest.mark.parametrize("handler", ["end_children", "end_children_from_the_loop"])
async def test_children_that_a_handler_forks_die_as_in_a_script_and_their_worker_stays(
    start_host: StartHost, router: Router, handler: str
) -> None:
    host = await _host(start_host)
    before = host.workers()
    for how, exits in (
        ("SIGTERM", [-signal.SIGTERM] * 3),
        ("SIGHUP", [-signal.SIGHUP] * 3),
        ("SIGINT", None),
        ("pool", []),
    ):
        reply = await router.request(handler, {"how": how}, deadline=25)
        found = reply.json()["exits"]
        # a child that has not got to its function yet dies by the signal itself
        assert found == exits if exits is not None else set(found) <= {1, -signal.SIGINT}, how
    assert (await router.request("pid", {})).json() == before[0]
    assert host.workers() == before
    assert "has left" not in host.log_text()


@pytest.mark.parametrize("handler", ["fork_on_loop", "fork_in_thread"])
async def test_a_forked_child_that_comes_back_from_its_handler_ends_and_answers_nothing(
    start_host: StartHost, router: Router, handler: str
) -> None:
    host = await _host(start_host)
    before = host.workers()
    for how, status in (("return", 0), ("exit", 7), ("raise", 1), ("await", 0)):
        request = await router.send(handler, {"how": how}, deadline=6)
        assert (await router.reply(request)).json() == status, how
        assert (await router.request("pid", {})).json() == before[0]
        assert len(request.replies) == 1, how
    assert [p.pid for p in host.all_processes() if "worker" in p.title] == [before[0]]


async def test_signals_that_a_handler_blocks_are_unblocked(start_host: StartHost, router: Router) -> None:
    host = await _host(start_host)
    assert (await router.request("block", {})).body == b"blocked"
    await host.log("the application has blocked SIGCHLD, SIGHUP, SIGINT")
    assert (await router.request("sub_process", {}, deadline=6)).json() == 3


async def test_a_handler_for_sigchld_is_put_back_so_that_sub_processes_are_waited_for(
    start_host: StartHost, router: Router
) -> None:
    host = await _host(start_host)
    assert (await router.request("sub_process", {})).json() == 3
    for _ in range(2):
        await router.request("pid", {})
        since = len(host.log_text().splitlines())
        assert (await router.request("take", {"signal": "SIGCHLD"})).body == b"taken"
        await host.log("set a handler for SIGCHLD (shop.on_signal): put back", since=since)
        assert (await router.request("sub_process", {}, deadline=6)).json() == 3


@pytest.mark.parametrize("preload", [True, False])
async def test_a_handler_for_sigchld_set_at_import_is_undone(
    start_host: StartHost, router: Router, preload: bool
) -> None:
    prefix = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    await _host(start_host, preload, prefix)
    assert (await router.request("sub_process", {}, deadline=6)).json() == 3


async def test_a_handler_for_sigterm_is_put_back_and_another_one_is_named(
    start_host: StartHost, router: Router
) -> None:
    host = await _host(start_host)
    for name in ("SIGTERM", "SIGUSR2", "SIGINT"):
        await router.request("take", {"signal": name})
        await host.log(f"set a handler for {name} (shop.on_signal): put back")
    await router.request("take", {"signal": "SIGALRM"})
    await host.log("set a handler for SIGALRM (shop.on_signal): if it raises")
    worker = host.workers()[0]
    os.kill(worker, signal.SIGINT)
    assert (await router.request("pid", {})).json() == worker
    os.kill(worker, signal.SIGTERM)
    await host.log(f"worker 0 (pid {worker}) has left")
