"""Limits: of the server's connections, of its payload after a restart, of a process's descriptors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.connection.conftest import StartWatched
from tests.support.factories import StartRouter
from tests.support.operator_mode import Operator, write_secret
from tests.support.reported_state import (
    reconnects,
    says_the_truth,
    subscribed_again,
    workers_subscribed,
)
from tests.support.router import Report, Verdict, headers_of, subject_of, task_json
from tests.support.waiting import until

MEDDLERS = {name: f"tests.support.harmful_handlers:{name}" for name in ("leak_descriptors", "huge_later")}
HANDLERS = {"echo": "echo", "work": "work", "kill": "kill_self", **MEDDLERS}
BACK = 6.0


async def test_a_reload_that_meets_the_limit_of_connections_says_so_and_serves_on_and_works_later(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS)
    router = await start_router()
    # two workers, the supervisor and the router are on it: one more is enough for a change of workers, none is not
    await server.reload("max_connections: 5")
    result = await host.reload(timeout=60.0)
    assert result.status == 0, result
    await server.until_connected(most=4)  # the last of the old workers has left
    await server.reload("max_connections: 4")
    before = set(host.workers().values())
    result = await host.reload(timeout=60.0)
    assert result.status != 0, result
    assert "aximum connections" in result.stderr, result
    assert (await router.request("echo", b"x")).body == b"x"
    await until(lambda: before <= set(host.workers().values()))  # the rejected one ends by itself
    await says_the_truth(host, pages, 2)
    await server.reload("max_connections: 1000")
    result = await host.reload(timeout=BACK + 20)
    assert result.status == 0, result
    await says_the_truth(host, pages, 2)
    assert (await router.request("echo", b"x")).body == b"x"


async def test_workers_that_found_a_full_server_come_when_there_is_room(
    start_watched: StartWatched,
) -> None:
    server, host, pages = await start_watched(HANDLERS, count=4)
    await server.stop()
    server.configure("max_connections: 3")
    await server.start()
    await server.logged("maximum connections exceeded")
    await asyncio.sleep(3)
    some = await workers_subscribed(server)
    assert some in (2, 3)
    said = await says_the_truth(host, pages, some, 4)
    assert "aximum connections" in said.reason
    await server.reload("max_connections: 1000")
    await subscribed_again(server, 4, BACK)
    await says_the_truth(host, pages, 4)


async def test_a_reply_that_exceeds_the_limit_of_the_server_that_is_met_next_is_terminated(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS)
    router = await start_router()
    await says_the_truth(host, pages, 2)
    big = await router.send("huge_later", {"sleep_ms": 3000, "bytes": 300_000}, deadline=20)
    await host.running(1)
    await server.kill()
    await asyncio.sleep(3.2)
    server.configure("max_payload: 64KB")
    await server.start()
    assert (await router.reply(big)).verdict is Verdict.TERMINATE
    await subscribed_again(server, 2, BACK)
    requests = [await router.send("echo", b"x", deadline=8) for _ in range(20)]
    await router.settled(requests)
    assert Report(tuple(requests)).verdicts == {Verdict.COMPLETE: 20}, Report(tuple(requests))
    assert server.log().count("Maximum Payload Violation") <= 1
    assert await reconnects(pages) < 8
    await says_the_truth(host, pages, 2)


@pytest.mark.parametrize("limit", [2048, 40])
async def test_a_user_with_a_limit_of_its_own_serves_what_others_send_and_keeps_to_it(
    tmp_path: Path, start_watched: StartWatched, start_router: StartRouter, limit: int
) -> None:
    operator = Operator()
    file = write_secret(tmp_path / "host.creds", operator.user("host", payload=limit))
    mine = write_secret(tmp_path / "router.creds", operator.user("router"))
    server, host, pages = await start_watched(HANDLERS, config=operator.config(), nats={"creds": file})
    router = await start_router(user_credentials=str(mine))
    workers = host.workers()
    big = await router.send("huge_later", {"sleep_ms": 0, "bytes": 5000}, deadline=8)
    if limit == 40:
        await host.log("a reply is left out")  # there is no error text that is so short
    else:
        assert (await router.reply(big)).verdict is Verdict.TERMINATE
        large = await router.request("work", {"sleep_ms": 0, "pad": "x" * 300_000})
        assert large.verdict is Verdict.COMPLETE
    [told] = [r for r in (await host.status())["routes"] if r["route"] == "huge_later"]
    counted = (told["completed"], told["terminated"], told["failed"]["reply refused"])
    assert counted == ((0, 0, 1) if limit == 40 else (0, 1, 0))
    await server.restart()
    await subscribed_again(server, 2, BACK)
    await says_the_truth(host, pages, 2)
    assert "Maximum Payload Violation" not in server.log()
    assert host.workers() == workers
    assert "max_payload grew" not in host.log_text()


async def test_a_server_that_takes_no_headers_is_told_and_not_asked_to_take_an_error(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS | {"error": "error"})
    router = await start_router()
    await says_the_truth(host, pages, 2)
    await server.stop()
    server.configure("no_header_support: true")
    await server.start()
    place, told = server.url.removeprefix("nats://"), "the server takes no headers"
    for worker in range(2):
        await host.log(f"worker {worker}: waiting for NATS at {place}: {told}", timeout=BACK)
    said = await says_the_truth(host, pages, 0, 2)
    assert "headers" in said.reason
    result = await host.command("check", "--connect")
    assert result.status != 0, result
    assert told in result.stderr
    await server.stop()
    server.configure("")
    await server.start()
    await subscribed_again(server, 2, BACK)
    assert (await router.request("error")).verdict is Verdict.ERROR
    await says_the_truth(host, pages, 2)


async def test_reply_subjects_that_no_server_takes_cost_nobody_the_connection(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS)
    router = await start_router()
    await says_the_truth(host, pages, 2)
    before = await reconnects(pages)
    for number, reply in enumerate(("_INBOX..x", "_INBOX.>", "_INBOX.*", "_INBOX.", ".x", "_INBOX.é.\x7f")):
        for route in ("echo", "kill"):  # a worker answers the one, the supervisor the other
            body = task_json(route, b"x" if route == "echo" else b'{"sleep_ms": 50}')
            headers = headers_of(2_000_000_000)
            await router.client.publish(subject_of(route), body, reply=reply, headers=headers)
        assert (await router.request("echo", b"x%d" % number)).body == b"x%d" % number
    await subscribed_again(server, 2, BACK)
    assert await reconnects(pages) == before
    await says_the_truth(host, pages, 2)


async def test_the_only_worker_that_has_no_descriptor_left_is_replaced_when_it_must_connect(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS, count=1)
    router = await start_router()
    before = host.workers()[0]
    assert (await router.request("leak_descriptors")).json() > 100
    lines = len(host.output.lines)
    requests = [await router.send("work", {"sleep_ms": 1500}, deadline=20) for _ in range(4)]
    await host.running(4)
    await server.kill()
    await server.start()
    await host.log("oo many open files: 256 of 256", since=lines, timeout=BACK)
    await subscribed_again(server, 1, 2 * BACK)
    assert host.workers()[0] != before
    await router.settled(requests)
    report = Report(tuple(requests))
    assert not report.silent, report
    assert (await router.request("echo", b"x")).body == b"x"
    await says_the_truth(host, pages, 1)
    assert len(host.output.lines) - lines < 60
