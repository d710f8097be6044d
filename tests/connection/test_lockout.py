"""Many workers without access: the host tries as one, and all are back together."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.factories import StartHost, StartServer
from tests.support.nats import NatsServer
from tests.support.reported_state import cut_off, listens, says_the_truth, subscribed_again, with_pages

REFUSED = "authentication error"


def _users(password: str) -> str:
    return f"authorization {{ users = [{{user: host, password: {password}}}] }}"


async def _log_ins(server: NatsServer, seconds: float) -> float:
    """Refused log-ins a second, over so many seconds from now."""
    before = server.log().count(REFUSED)
    await asyncio.sleep(seconds)
    return (server.log().count(REFUSED) - before) / seconds


@pytest.mark.parametrize("workers", [16, pytest.param(64, marks=pytest.mark.long)])
async def test_workers_that_are_locked_out_try_seldom_and_come_back_together(
    start_server: StartServer, start_host: StartHost, workers: int
) -> None:
    sections = with_pages(count=workers, nats={"user": "host", "password": "one"})
    server = await start_server(config=_users("one"), monitored=True)
    host = await start_host(sections=sections)
    lines = len(host.output.lines)
    await server.reload(_users("two"))
    at_first = await _log_ins(server, 3)
    assert at_first < 50, at_first
    await cut_off(server)
    await says_the_truth(host, listens(sections), 0, workers)
    if workers > 16:
        await asyncio.sleep(12)
    else:
        await asyncio.sleep(4)
    later = await _log_ins(server, 3)
    assert later < 10, later
    assert len(host.output.lines) - lines < 4 * workers + 40
    await server.reload(_users("one"))
    await subscribed_again(server, workers, 6.0)
    await says_the_truth(host, listens(sections), workers)
