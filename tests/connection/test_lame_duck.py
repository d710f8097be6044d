"""A server that says that it will end: connections move before it does, nothing is lost, nothing new is repeated."""

from __future__ import annotations

import asyncio

from tests.support.factories import StartHost, StartRouter, StartServer
from tests.support.nats import free_port
from tests.support.reported_state import listens, says_the_truth, subscribed_again, with_pages
from tests.support.router import Report, Verdict

HANDLERS = {"echo": "echo", "work": "work"}


async def test_connections_leave_a_lame_duck_for_another_server_and_repeat_nothing_that_came_later(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = with_pages(count=4, workers={"backlog": 1000})
    slow = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "8s"\n'
    cluster = 'cluster {{ name: c, listen: "127.0.0.1:{own}", routes: ["nats://127.0.0.1:{other}"] }}\n'
    ports = free_port(), free_port()
    one = await start_server(config=slow + cluster.format(own=ports[0], other=ports[1]), monitored=True)
    two = await start_server(config=slow + cluster.format(own=ports[1], other=ports[0]), monitored=True)
    host = await start_host(nats=[one.url, two.url], handlers=HANDLERS, sections=sections)
    leaving, staying = (one, two) if await one.subscribers("CHORIA_AJ.H.T.echo") else (two, one)
    router = await start_router(staying.url)
    async with router.load("work", {"sleep_ms": 5}, rate=150, deadline=20) as load:
        await load.sent(150)
        await leaving.lame_duck()
        # before the server closes anything: its grace period is longer
        await subscribed_again(staying, 4, 6.0)
        moved = len(load.requests)
        await says_the_truth(host, listens(sections), 4)
        await load.sent(150 * 10)
    await asyncio.sleep(1)
    report = load.report()
    assert not report.silent, report
    assert not report.late, report
    assert not report.no_responders, report
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    later = Report(report.requests[moved:])
    assert not later.duplicates, later


async def test_what_came_after_a_reconnect_is_answered_once(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    server = await start_server(monitored=True)
    host = await start_host(handlers=HANDLERS, sections=with_pages())
    router = await start_router()
    before = [await router.send("work", {"sleep_ms": 1000}, deadline=20) for _ in range(5)]
    await host.running(5)
    await server.restart()
    await subscribed_again(server, 2, 6.0)
    await router.barrier()
    async with router.load("echo", b"x", rate=300, count=1500, deadline=20) as load:
        pass
    await router.settled(before)
    await asyncio.sleep(3)  # in which replies would be repeated
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: 1500}, report
    assert not report.duplicates, report
    assert {request.verdict for request in before} == {Verdict.COMPLETE}
