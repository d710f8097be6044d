"""Servers that are not there: silent ones, black holes, names with dead addresses, a name server that is away."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from tests.support.factories import Enter, NewHost, StartHost, StartRouter, StartServer
from tests.support.fake_nats import FakeNats, serves
from tests.support.name_resolution import DeadResolver, NamedHost, can_rename
from tests.support.nats import free_port
from tests.support.proxy import BlackHole
from tests.support.reported_state import listens, says_the_truth, subscribed_again, with_pages
from tests.support.router import Report, Verdict, subject_of
from tests.support.waiting import until

HANDLERS = {"echo": "echo", "work": "work", "look_up": "tests.support.harmful_handlers:look_up"}
ECHO = subject_of("echo")
needs_names = pytest.mark.skipif(not can_rename(), reason="only root can give a process other names")


async def test_a_server_that_falls_silent_is_left_for_the_second_one(
    start_server: StartServer, start_host: StartHost
) -> None:
    sections = with_pages()
    one = await start_server(monitored=True)
    two = await start_server(monitored=True)
    host = await start_host(nats=[one.url, two.url], handlers=HANDLERS, sections=sections)
    silent, other = (one, two) if await one.subscribers(ECHO) else (two, one)
    await silent.stand_still()
    await subscribed_again(other, 2, 8.0)
    said = await says_the_truth(host, listens(sections), 2)
    for connection in said.connections.values():
        assert connection is not None
        assert connection["server"].endswith(str(other.port))


async def test_ten_discovered_black_holes_do_not_hide_the_configured_server(new_host: NewHost) -> None:
    with contextlib.ExitStack() as holes:
        urls = [holes.enter_context(BlackHole(f"127.66.0.{n}")).where for n in range(1, 11)]
        async with (
            FakeNats(serves(connect_urls=urls)) as server,
            new_host(nats=server.url, handlers=HANDLERS),
        ):
            await server.subscribed(ECHO, 2, 5.0)
            for _ in range(3):
                await server.drop()
                await server.subscribed(ECHO, 2, 5.0)


async def test_thirty_rounds_of_new_addresses_do_not_hide_the_configured_server(new_host: NewHost) -> None:
    with contextlib.ExitStack() as holes:
        hole = holes.enter_context(BlackHole("127.66.1.1"))
        async with (
            FakeNats(serves()) as server,
            new_host(nats=server.url, handlers=HANDLERS) as host,
        ):
            await server.subscribed(ECHO, 2, 5.0)
            for turn in range(30):
                urls = [f"127.66.{turn}.{n}:{hole.port}" for n in range(2, 22)]
                for session in server.sessions:
                    await session.greet(connect_urls=urls)
            holes.enter_context(BlackHole("127.66.29.2", hole.port))
            await server.drop()
            await server.subscribed(ECHO, 2, 5.0)
            assert len(host.output.lines) < 60


async def test_discovered_servers_are_found_when_the_configured_one_is_gone(
    start_server: StartServer, start_host: StartHost
) -> None:
    cluster = 'cluster {{ name: c, listen: "127.0.0.1:{own}", routes: ["nats://127.0.0.1:{other}"] }}\n'
    ports = free_port(), free_port()
    texts = [cluster.format(own=own, other=other) for own, other in (ports, ports[::-1])]
    one = await start_server(config=texts[0], monitored=True)
    two = await start_server(config=texts[1], monitored=True)
    await start_host(handlers=HANDLERS)
    await subscribed_again(one, 2, 5.0)
    await one.kill()
    await subscribed_again(two, 2, 6.0)


async def test_discovered_servers_are_ignored_when_they_are_not_wanted(start_host: StartHost, enter: Enter) -> None:
    other = await enter(FakeNats(serves()))
    server = await enter(FakeNats(serves(connect_urls=[f"127.0.0.1:{other.port}"])))
    await start_host(nats=server.url, handlers=HANDLERS, sections={"nats": {"discover": False}})
    await server.subscribed(ECHO, 2, 5.0)
    for _ in range(3):
        await server.drop()
        await server.subscribed(ECHO, 2, 5.0)
    assert not other.taken


@needs_names
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
async def test_a_name_whose_first_address_is_dead_is_reached_by_its_second(
    tmp_path: Path, start_server: StartServer, family: str
) -> None:
    # getaddrinfo puts ::1, and 127.0.0.1 before all of 127/8, first
    good, dead = ("127.0.0.2", "127.0.0.1") if family == "IPv4" else ("127.0.0.1", "::1")
    server = await start_server(address=good, monitored=True)
    with BlackHole(dead, server.port):
        host = NamedHost(
            tmp_path,
            nats=f"nats://nats.test:{server.port}",
            handlers=HANDLERS,
            hosts=f"{dead} nats.test\n{good} nats.test",
        )
        began = time.monotonic()
        async with host:
            assert time.monotonic() - began < 10
            for _ in range(2):
                await server.restart()
                await subscribed_again(server, 2, 3.0)


@needs_names
async def test_a_name_that_has_another_address_by_now_leads_to_that(
    tmp_path: Path, start_server: StartServer, enter: Enter
) -> None:
    port = free_port()
    old = await start_server(address="127.0.0.2", monitored=True, port=port)
    host = NamedHost(tmp_path, nats=f"nats://nats.test:{port}", handlers=HANDLERS, hosts="127.0.0.2 nats.test")
    await enter(host)
    new = await start_server(address="127.0.0.3", monitored=True, port=port)
    host.rename("127.0.0.3 nats.test")
    await old.kill()
    await subscribed_again(new, 2, 6.0)


@needs_names
@pytest.mark.parametrize("server_by", ["name", "address"])
async def test_a_name_server_that_is_away_and_handlers_that_ask_it_delay_nothing(
    tmp_path: Path, start_server: StartServer, enter: Enter, start_router: StartRouter, server_by: str
) -> None:
    sections = with_pages(count=1, workers={"concurrency": 64})
    resolver = "127.0.0.66" if server_by == "name" else "127.0.0.67"
    server = await start_server(monitored=True)
    dead = await enter(DeadResolver(resolver))
    host = await enter(
        NamedHost(
            tmp_path,
            nats=f"nats://{'nats.test' if server_by == 'name' else '127.0.0.1'}:{server.port}",
            handlers=HANDLERS,
            sections=sections,
            hosts="127.0.0.1 nats.test",
            resolver=resolver,
        )
    )
    router = await start_router()
    asking = [await router.send("look_up", {"name": f"host{n}.example"}, deadline=20) for n in range(16)]
    await host.running(16)
    await until(lambda: dead.asked)  # a handler that has begun has not asked yet
    requests = [await router.send("work", {"sleep_ms": 300}, deadline=8) for _ in range(16)]
    await router.barrier()
    assert (await router.request("echo", b"x")).body == b"x"
    await server.restart()
    await subscribed_again(server, 1, 6.0)
    await says_the_truth(host, listens(sections), 1)
    await router.settled([*requests, *asking])
    report = Report(tuple(requests))
    assert report.verdicts == {Verdict.COMPLETE: 16}, report
    assert not report.late, report
    assert not Report(tuple(asking)).silent
