"""Stopping: leave the group, finish, answer, exit 0; past the limit answer for what is left."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.support.factories import NewHost, StartHost, StartRouter
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

HANDLERS = {"echo": "echo", "work": "work", "stuck": "stuck_thread"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_held_is_finished(start_host: StartHost, router: Router, number: signal.Signals) -> None:
    host = await start_host(handlers=HANDLERS)
    requests = [await router.send("work", {"sleep_ms": 700}) for _ in range(60)]
    await router.barrier()
    host.send_signal(number)
    assert await host.wait() == 0
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}
    assert (await router.request("echo")).verdict is Verdict.NO_RESPONDERS


async def test_past_the_drain_timeout_the_rest_is_answered_draining(start_host: StartHost, router: Router) -> None:
    sections = {"workers": {"count": 2, "concurrency": 2, "drain_timeout": 1.0}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    requests = [await router.send("work", {"sleep_ms": 60_000}, deadline=60) for _ in range(10)]
    requests.append(await router.send("stuck", {}, deadline=60))
    await router.barrier()
    began = time.monotonic()
    assert await host.terminate() == 0
    assert time.monotonic() - began < 20, "each task has a minute"
    replies = [await router.reply(r) for r in requests]
    assert {(r.verdict, r.word) for r in replies} == {(Verdict.ERROR, "draining:")}
    assert host.output.having("tasks remain")


async def test_a_second_signal_hurries(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS)
    request = await router.send("work", {"sleep_ms": 60_000}, deadline=60)
    await router.barrier()
    host.send_signal(signal.SIGTERM)
    await host.log("stopping")
    began = time.monotonic()
    host.send_signal(signal.SIGTERM)
    assert await host.wait() == 0
    assert time.monotonic() - began < 9, "an unhurried stop drains for 10 s"
    assert (await router.reply(request)).word == "draining:"


async def test_a_signal_that_comes_too_late_to_hurry_changes_nothing(start_host: StartHost) -> None:
    host = await start_host(handlers=HANDLERS)
    ended = asyncio.create_task(host.wait())
    while not ended.done():
        host.send_signal(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=0.001)
    assert ended.result() == 0


@pytest.mark.parametrize("stops", [3, pytest.param(10, marks=pytest.mark.long)])
async def test_stops_under_load_beside_a_second_host_lose_nothing(
    start_host: StartHost, router: Router, stops: int
) -> None:
    await start_host(handlers=HANDLERS)
    leaving = await start_host(handlers=HANDLERS)
    for _ in range(stops):
        async with router.load("work", {"sleep_ms": 3}, rate=500, deadline=10) as load:
            await load.sent(50)
            assert await leaving.terminate() == 0
            await load.sent(20)
        report = load.report()
        assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
        await leaving.restart()


async def test_a_host_without_a_server_waits_says_so_and_stops_when_told(new_host: NewHost) -> None:
    host = new_host(nats="nats://127.0.0.1:9", handlers=HANDLERS)
    await host.launch()
    await host.log("waiting for NATS at 127.0.0.1:9")
    began = time.monotonic()
    host.send_signal(signal.SIGTERM)
    assert await host.wait() == 0
    assert time.monotonic() - began < 20
    assert len(host.output.having("waiting for NATS")) < 5
    await host.nothing_left()


async def test_a_connection_that_comes_back_while_the_host_stops_is_for_replies_only(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = {"workers": {"drain_timeout": 4.0}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(reconnect_time_wait=0.02)
    held = await router.send("work", {"sleep_ms": 2000}, deadline=20)
    await router.barrier()
    assert (await router.request("echo", b"x")).body == b"x"  # all are handed over
    await nats_server.stop()
    host.send_signal(signal.SIGTERM)
    await host.log("stopping")
    await nats_server.start()
    await router.barrier()
    ended = asyncio.create_task(host.wait())
    verdicts = set()
    while not ended.done():
        verdicts.add((await router.request("echo")).verdict)
        await asyncio.wait({ended}, timeout=0.02)
    assert ended.result() == 0
    assert verdicts == {Verdict.NO_RESPONDERS}
    assert (await router.reply(held)).verdict is Verdict.COMPLETE
