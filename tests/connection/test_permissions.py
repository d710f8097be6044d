"""Permissions that are missing, taken away and given back: told with the one to grant, never as if all were well."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.connection.conftest import StartWatched
from tests.support.factories import NewHost, StartHost, StartRouter, StartServer
from tests.support.nats import NatsServer
from tests.support.reported_state import cut_off, listens, says_the_truth, subscribed_again, with_pages
from tests.support.router import Report, Verdict, subject_of

HANDLERS = {"echo": "echo"}
ACCESS = {"user": "host", "password": "pw"}
ALL = "{subscribe: ['>'], publish: ['>']}"
BACK = 6.0


def _config(permissions: str) -> str:
    users = f"{{user: host, password: pw, permissions: {permissions}}}, {{user: router, password: pw}}"
    return f"authorization {{ users = [{users}] }}".replace("'", '"')


async def test_a_host_that_may_not_subscribe_is_not_ready_and_says_what_to_grant(
    start_server: StartServer, new_host: NewHost
) -> None:
    sections = with_pages(nats=ACCESS)
    server = await start_server(config=_config("{subscribe: ['_INBOX.>'], publish: ['>']}"), monitored=True)
    host = new_host(handlers=HANDLERS, sections=sections)
    await host.launch()
    line = await host.log(
        lambda text: "ERROR" in text and subject_of("echo") in text and "ubscri" in text, timeout=10.0
    )
    assert "pw" not in line.text.split()
    # each tells what it lacks when the server has answered for all subscriptions, and readiness says it then
    missing = f"waiting for NATS at 127.0.0.1:{server.port}: no permission to subscribe to"
    for worker in ("worker 0", "worker 1"):
        await host.log(f"{worker}: {missing} {subject_of('echo')}", timeout=10.0)
    await cut_off(server)
    said = await says_the_truth(host, listens(sections), 0, 2)
    assert subject_of("echo") in said.reason
    assert not host.notifications.having("READY")
    await server.reload(_config(ALL))
    await host.ready(BACK + 4.0)
    await subscribed_again(server, 2, BACK)
    await says_the_truth(host, listens(sections), 2)
    assert await host.terminate() == 0


async def test_a_permission_that_is_taken_away_and_given_back(start_watched: StartWatched) -> None:
    server, host, pages = await start_watched(HANDLERS, config=_config(ALL), nats=ACCESS)
    await says_the_truth(host, pages, 2)
    await server.reload(_config("{subscribe: ['_INBOX.>'], publish: ['>']}"))
    await cut_off(server)
    await says_the_truth(host, pages, 0, 2)
    await server.reload(_config(ALL))
    await subscribed_again(server, 2, BACK)
    await says_the_truth(host, pages, 2)


async def test_replies_that_may_not_be_published_are_told_and_counted(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = with_pages(nats=ACCESS)
    await start_server(config=_config("{subscribe: ['>'], publish: ['nothing']}"), monitored=True)
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(user="router", password="pw")
    requests = [await router.send("echo", b"x", deadline=4) for _ in range(50)]
    await host.log(lambda text: "ERROR" in text and "_INBOX" in text and "ublish" in text)
    await asyncio.sleep(1)
    assert len(host.output.having("ublish")) < 12  # told once in a while by each process, with a count
    status = await host.status()
    assert sum(worker["connection"]["refused_replies"] for worker in status["workers"]) == 50, status
    assert Report(tuple(requests)).verdicts == {Verdict.SILENT: 50}


async def test_check_with_connect_tells_each_thing_that_would_be_refused(tmp_path: Path, new_host: NewHost) -> None:
    for permissions, more, wanted in (
        (ALL, "", ""),
        # enough to serve: it is a warning that the groups of other hosts were not looked at
        ("{subscribe: ['CHORIA_AJ.>'], publish: ['_INBOX.>']}", "", ""),
        ("{subscribe: ['_INBOX.>'], publish: ['>']}", "", subject_of("echo")),
        ("{subscribe: ['>'], publish: ['nothing']}", "", "_INBOX"),
        (ALL, "max_subscriptions: 1\n", "limit of subscriptions"),
    ):
        async with NatsServer(tmp_path, config=f"{_config(permissions)}\n{more}") as server:
            host = new_host(nats=server.url, handlers={"echo": "echo", "work": "work"}, sections={"nats": ACCESS})
            result = await host.command("check", "--connect")
            assert (result.status == 0) == (not wanted), result
            assert wanted in result.stdout + result.stderr
            assert ("queue_group" in result.stderr) == (permissions != ALL and not wanted), result
    host = new_host(nats="nats://127.0.0.1:9", handlers=HANDLERS)
    result = await host.command("check", "--connect")
    assert result.status != 0
    assert "127.0.0.1:9" in result.stdout + result.stderr
