"""`ajhost drain` and `ajhost resume`: a host leaves the queue group, finishes what it holds, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ajhost.ledger.layout import State
from ajhost.roles.control_client import control
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.http_page import fetch
from tests.support.nats import NatsServer, free_port
from tests.support.router import Router, Verdict, subject_of
from tests.support.waiting import until

HANDLERS = {"work": "work", "block": "block_loop"}
_HELD = (State.RECEIVED, State.QUEUED, State.STARTED)


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server that can be asked who is subscribed."""
    async with NatsServer(tmp_path, monitored=True) as server:
        yield server


async def _host(start_host: StartHost, listen: str = "", **workers: object) -> Host:
    sections: dict[str, dict[str, object]] = {"workers": {"count": 2} | workers}
    if listen:
        sections["http"] = {"listen": listen}
    return await start_host(handlers=HANDLERS, sections=sections)


async def _ask(host: Host, what: str, **more: object) -> tuple[bool, str]:
    return await asyncio.to_thread(control, host.runtime, 20.0, {"ask": what} | more)


async def test_a_drained_host_finishes_what_it_holds_gets_nothing_new_and_says_so_everywhere(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    host = await _host(start_host, listen, count=1, concurrency=1)
    held = [await router.send("work", {"sleep_ms": 55_000}, deadline=58)]
    await host.running(1)
    held += [await router.send("work", {}, deadline=58) for _ in range(2)]
    await router.barrier()
    drained = await host.command("drain")
    assert (drained.status, drained.stdout, drained.stderr) == (0, "draining: 3 tasks left\n", "")
    line = await host.log("drain asked for by user")
    assert f"user {os.getuid()} (pid " in line.text
    assert not await nats_server.subscribers(subject_of("work"))
    assert (await router.request("work", {}, deadline=10)).verdict is Verdict.NO_RESPONDERS
    with pytest.raises(TimeoutError):
        await router.client.request("$SRV.PING.ajhost", timeout=0.3)

    await host.notifications.next("STATUS", drained.stdout.strip())
    ready = await fetch(listen, "/readyz")
    assert (ready.status, ready.text[:10]) == (503, "draining: ")
    assert "\najhost_draining 1.0\n" in (await fetch(listen, "/metrics")).text
    result = await host.command("status")
    assert (result.status, "draining: " in result.stdout, "not ready" in result.stdout) == (1, True, True)
    assert f" ago by user {os.getuid()} (pid " in result.stdout

    late = await host.command("drain", "--wait", "--timeout", "0")
    assert (late.status, late.stdout) == (1, "")
    assert late.stderr.endswith("left; the host drains on\n")
    waiting = asyncio.create_task(host.command("drain", "--wait", "--json"))
    assert await _ask(host, "cancel", task=held[0].id) == (True, "cancelled, it was running")
    waited = await waiting
    assert (waited.status, json.loads(waited.stdout)) == (
        0,
        {"draining": True, "drained": True, "left": 0, "serving": 0, "slots": 1},
    )
    verdicts = [(await router.reply(task)).verdict for task in held]
    assert verdicts == [Verdict.ERROR, Verdict.COMPLETE, Verdict.COMPLETE]
    await host.notifications.next("STATUS", "drained")
    assert (await fetch(listen, "/readyz")).text == "drained\n"
    status = await host.status()
    assert (status["supervisor"]["ready"], status["draining"], status["drained"]) == (False, True, True)
    assert status["supervisor"]["drain_by"] == line.text.partition(" by ")[2]
    assert [worker["state"] for worker in status["workers"]] == ["drained"]

    resumed = await host.command("resume")
    assert (resumed.status, resumed.stdout) == (0, "1 of 1 workers serve\n")
    assert (await router.request("work", {}, deadline=10)).verdict is Verdict.COMPLETE
    assert (await fetch(listen, "/readyz")).status == 200
    assert json.loads((await router.client.request("$SRV.PING.ajhost", timeout=5)).data)["name"] == "ajhost"
    assert "\najhost_draining 0.0\n" in (await fetch(listen, "/metrics")).text
    # the supervisor, who is the last resort while nobody else serves, leaves the group a moment after the worker joined
    names = [f"ajhost worker 0 on {socket.gethostname()}, {host.runtime}"]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while await nats_server.subscribers(subject_of("work")) != names:
                pass
    assert await nats_server.subscribers(subject_of("work")) == names


async def test_two_hosts_take_turns_and_no_request_finds_nobody(start_host: StartHost, router: Router) -> None:
    one = await _host(start_host)
    two = await _host(start_host)
    async with router.load("work", {"sleep_ms": 20}, rate=200, deadline=20) as load:
        for host in (one, two, one):
            await load.sent(20)
            assert (await host.command("drain", "--wait", "--timeout", "15")).stdout == "drained\n"
            await load.sent(20)
            assert not host.in_ledgers(*_HELD)
            assert (await _ask(host, "resume")) == (True, "2 of 2 workers serve")
    report = load.report()
    assert report.verdicts.keys() == {Verdict.COMPLETE}, report


async def test_a_drain_outlives_reloads_workers_and_a_killed_supervisor_and_ends_with_an_ordered_stop(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    subject = subject_of("work")
    host = await _host(start_host, count=1)
    assert (await _ask(host, "drain")) == (True, "drained")
    assert (await _ask(host, "drain")) == (True, "drained")
    (old,) = host.workers().values()
    assert (await host.reload()).stdout == "generation 2 is in place, and the host stays drained\n"
    await host.log("is up and drained, generation 2")
    await host.log(f"worker 0 (pid {old}) has left")
    assert (await _ask(host, "drain")) == (True, "drained")  # the old worker is settled
    settings = host.file.read_text()
    host.write_settings(settings + "[workers2]\n")
    rejected = await host.reload()
    assert rejected.stderr.startswith("rejected, the old generation stays, drained:\n"), rejected
    host.write_settings(settings)
    seen = len(host.output.text().splitlines())
    host.kill(0)
    await host.log("is up and drained, generation 2", since=seen)
    assert not await nats_server.subscribers(subject)

    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.restart()
    await host.log("the host is drained, as it was when its supervisor was killed")
    assert (await _ask(host, "drain")) == (True, "drained")
    assert (await host.status())["supervisor"]["drain_by"] == f"user {os.getuid()} (pid {os.getpid()})"
    assert not await nats_server.subscribers(subject)
    assert (await _ask(host, "resume")) == (True, "1 of 1 workers serve")
    assert (await host.status())["supervisor"]["drain_by"] == ""
    assert (await router.request("work", {}, deadline=10)).verdict is Verdict.COMPLETE

    assert (await _ask(host, "drain")) == (True, "drained")
    assert await host.terminate() == 0
    await host.restart()
    assert (await router.request("work", {}, deadline=10)).verdict is Verdict.COMPLETE


async def test_a_worker_that_hangs_through_a_drain_is_out_of_the_group_when_it_goes_on(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    host = await _host(start_host, count=1)
    task = await router.send("block", {"block_ms": 2500}, deadline=20)
    await host.running(1)
    await host.log("hangs: no beat")
    # it cannot say that it has left, and so the answer comes after a while
    assert (await _ask(host, "drain")) == (True, "draining: 1 task left")
    assert (await router.reply(task)).verdict is Verdict.COMPLETE
    assert (await host.command("drain", "--wait", "--timeout", "10")).stdout == "drained\n"
    assert not await nats_server.subscribers(subject_of("work"))


async def test_kills_at_any_instant_of_a_drain_leave_no_request_without_an_answer(
    start_host: StartHost, router: Router
) -> None:
    rng = random.Random(19)
    host = await _host(start_host)
    async with router.load("work", {"sleep_ms": 30}, rate=150, deadline=12) as load:
        for number in range(8):
            await load.sent(10)
            asked = asyncio.create_task(_ask(host, "resume" if number % 2 else "drain"))
            await asyncio.sleep(rng.random() * 0.02)
            if number % 3 == 2:
                host.send_signal(signal.SIGKILL)
                await host.wait()
                await asyncio.gather(asked, return_exceptions=True)
                await host.restart()
            else:
                await until(host.workers)  # the dead are replaced after a pause
                host.kill(rng.choice(sorted(host.workers())))
                await asked
        assert (await _ask(host, "resume"))[0]
        await load.sent(20)
    report = load.report()
    assert not report.silent, report
    assert not report.late, report
    assert report.words.keys() <= {"worker died:"}, report
    assert report.requests[-1].verdict is Verdict.COMPLETE
