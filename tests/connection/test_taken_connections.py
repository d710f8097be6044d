"""Workers that beat and do not read, as a handler took their connection away: they come back, or are replaced."""

from __future__ import annotations

import asyncio

import pytest

from tests.connection.conftest import StartWatched
from tests.support.factories import StartRouter
from tests.support.reported_state import says_the_truth, subscribed_again
from tests.support.router import Verdict

MEDDLERS = ("close_connection", "steal_connection", "remove_reader")
HANDLERS = {"echo": "echo"} | {name: f"tests.support.harmful_handlers:{name}" for name in MEDDLERS}


@pytest.mark.parametrize("how", MEDDLERS)
async def test_a_worker_that_does_not_read_any_more_reads_again_or_is_replaced_and_every_request_is_answered(
    start_watched: StartWatched, start_router: StartRouter, how: str
) -> None:
    server, host, pages = await start_watched(HANDLERS, count=2, workers={"backlog": 1000})
    router = await start_router()
    async with router.load("echo", b"x", rate=20, deadline=10) as load:
        await load.sent(10)
        meddling = await router.send(how, {"port": server.port}, deadline=10)
        await load.sent(20 * 12)
    await router.settled([meddling])
    report = load.report()
    assert not report.silent, report
    assert not report.late, report
    assert report.verdicts[Verdict.NO_RESPONDERS] == 0, report
    assert report.verdicts[Verdict.COMPLETE] > len(report.requests) - 10, report
    assert meddling.replies
    await subscribed_again(server, 2, 6.0)
    await says_the_truth(host, pages, 2)


async def test_the_only_worker_that_does_not_read_any_more_loses_no_request(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS, count=1)
    router = await start_router()
    await router.send("close_connection", {"port": server.port}, deadline=10)
    requests = []
    for _ in range(40):
        requests.append(await router.send("echo", b"x", deadline=10))
        await asyncio.sleep(0.1)
    replies = [await router.reply(request) for request in requests]
    assert {reply.verdict for reply in replies} == {Verdict.COMPLETE}
    await subscribed_again(server, 1, 6.0)
    await says_the_truth(host, pages, 1)
