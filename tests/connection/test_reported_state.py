"""A server that is gone: every place where the host says whether it serves says so, and says when it is back."""

from __future__ import annotations

import asyncio
import time

from tests.connection.conftest import StartWatched
from tests.support.factories import Enter, StartHost, StartRouter, StartServer
from tests.support.proxy import Partition
from tests.support.reported_state import (
    CONNECTED_STATE,
    Watch,
    listens,
    reconnects,
    says_the_truth,
    subscribed_again,
    with_pages,
    workers_subscribed,
)

HANDLERS = {"echo": "echo", "work": "work"}
BACK = 6.0


async def test_a_server_that_is_killed_is_told_everywhere_and_so_is_its_return(
    start_watched: StartWatched,
) -> None:
    server, host, pages = await start_watched(HANDLERS)
    said = await says_the_truth(host, pages, 2)
    for connection in said.connections.values():
        assert connection is not None
        assert connection["server"].endswith(f"127.0.0.1:{server.port}")
    before = await reconnects(pages)
    await server.kill()
    said = await says_the_truth(host, pages, 0, 2, within=2.0)
    for connection in said.connections.values():
        assert connection is not None
        assert connection["state"] != CONNECTED_STATE
        assert connection["reason"]
    status = await host.command("status")
    assert str(server.port) in status.stdout, status
    async with asyncio.timeout(3):
        while "0 of 2" not in host.notifications.having("STATUS")[-1].fields["STATUS"]:  # noqa: ASYNC110  # the newest
            await asyncio.sleep(0.1)
    await server.start()
    await subscribed_again(server, 2, BACK)
    said = await says_the_truth(host, pages, 2)
    for connection in said.connections.values():
        assert connection is not None
        assert connection["since_s"] < 30
    assert await reconnects(pages) - before >= 2


async def test_a_server_that_falls_silent_is_told_within_the_time_in_which_it_is_noticed(
    start_server: StartServer, start_host: StartHost, enter: Enter
) -> None:
    sections = with_pages()
    server = await start_server(monitored=True)
    partition = await enter(Partition(server.port))
    host = await start_host(nats=partition.url, handlers=HANDLERS, sections=sections)
    await says_the_truth(host, listens(sections), 2)
    partition.swallow()
    await says_the_truth(host, listens(sections), 0, 2, within=8.0)
    partition.heal()
    await partition.cut()
    await subscribed_again(server, 2, BACK)
    await says_the_truth(host, listens(sections), 2)


async def test_nothing_false_is_said_for_longer_than_a_moment_while_a_server_comes_and_goes(
    start_server: StartServer, start_host: StartHost, enter: Enter, start_router: StartRouter
) -> None:
    sections = with_pages()
    server = await start_server(monitored=True)
    partition = await enter(Partition(server.port))
    host = await start_host(nats=partition.url, handlers=HANDLERS, sections=sections)
    router = await start_router()
    assert (await router.request("echo", b"x")).body == b"x"
    async with Watch(host, listens(sections), 2, lambda: workers_subscribed(server)) as watch:
        for _ in range(3):
            await partition.refuse()
            await says_the_truth(host, listens(sections), 0, 2)
            partition.heal()
            since = time.monotonic()
            await subscribed_again(server, 2, BACK, since=since)
            await partition.reset()
            await says_the_truth(host, listens(sections), 2)
    assert watch.samples > 10
    # a lie is seen to end by the next look, and the host is as slow as who looks
    assert watch.longest().seconds < 1.5 + 3 * watch.slowest, watch
