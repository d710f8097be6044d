"""A host that serves nobody says so: to whoever asks, to systemd, to Prometheus, with the reason and for how long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.host.test_http import Answer, answers_until, fetch, scrape
from tests.support.factories import NewHost, StartHost, StartRouter, StartServer
from tests.support.host import Host, Section
from tests.support.nats import NatsServer, free_port
from tests.support.router import Verdict

NO_PERMISSION = """
authorization {{
  users = [
    {{ user: host, password: pw, permissions: {permissions} }}
    {{ user: router, password: pw }}
  ]
}}
"""


async def until(question: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Returns when the answer is yes."""
    async with asyncio.timeout(seconds):
        while not await question():  # noqa: ASYNC110  # asked from outside
            await asyncio.sleep(0.1)


def sections(listen: str, **more: Section) -> dict[str, Section]:
    return {"http": {"listen": listen}, "workers": {"count": 2}, **more}


async def state(host: Host) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of `ajhost status`."""
    result = await host.command("status", "--json")
    return result.status, json.loads(result.stdout)


async def test_a_server_that_goes_away_is_told_everywhere_and_so_is_its_return(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    host = await start_host(sections=sections(listen))
    where = nats_server.url.removeprefix("nats://")
    code, told = await state(host)
    assert code == 0
    assert told["supervisor"]["ready"] is True
    assert told["supervisor"]["connection"]["server"] == where
    assert [(w["connection"]["state"], w["connection"]["server"]) for w in told["workers"]] == [
        ("connected", where)
    ] * 2
    await nats_server.stop()

    async def all_lost() -> bool:
        workers = (await state(host))[1]["workers"]
        return all(w["state"] == "disconnected" and "refused" in w["connection"]["reason"] for w in workers)

    await until(all_lost)
    code, told = await state(host)
    assert (code, told["supervisor"]["ready"], told["serving"]) == (1, False, 0)
    for worker in told["workers"]:
        assert worker["connection"]["state"] in ("waiting", "resolving", "connecting")
        assert "refused" in worker["connection"]["reason"]
        assert 0 <= worker["connection"]["since_s"] < 30
    text = (await host.command("status")).stdout
    assert "not ready" in text
    assert "0 of 2 slots serve" in text
    assert "Connection refused" in text or "connection refused" in text
    answer = await answers_until(listen, "/readyz", 503)
    assert answer.text.startswith("slot 0 does not serve: ")
    assert "refused" in answer.text
    assert (await fetch(listen, "/healthz")) == Answer(200, "text/plain; charset=utf-8", "ok\n")
    samples = await scrape(listen)
    assert samples['ajhost_workers{state="disconnected"}'] == 2
    assert samples['ajhost_workers{state="serving"}'] == samples["ajhost_ready"] == 0
    assert samples['ajhost_nats_disconnected{reason="refused",slot="0"}'] == 1
    assert samples['ajhost_nats_connected{slot="0"}'] == samples['ajhost_nats_connected{slot="1"}'] == 0
    await until(lambda: shown(host, "0 of 2 workers serve"))
    await until(lambda: shown(host, "refused"))

    await nats_server.start()

    async def back() -> bool:
        return (await state(host))[0] == 0

    await until(back)
    assert (await answers_until(listen, "/readyz", 200)).text == "ready\n"

    async def supervisor_too() -> bool:  # it comes back after a pause of its own
        return not any(name.startswith("ajhost_nats_disconnected") for name in await scrape(listen))

    await until(supervisor_too)
    samples = await scrape(listen)
    assert samples['ajhost_workers{state="serving"}'] == 2
    assert samples['ajhost_nats_reconnects_total{reason="ended",slot="0"}'] == 1
    others = [name for name in samples if "reconnects" in name and 'reason="ended"' not in name]
    assert not others, "what the attempts met since then is no reason for which a connection ended"
    assert samples['ajhost_nats_connected{slot="1"}'] == 1
    await until(lambda: shown(host, "2 of 2 workers serve"))
    router = await start_router()
    assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE


async def shown(host: Host, text: str) -> bool:
    """Whether systemd shows a text."""
    return text in last_status(host)


def last_status(host: Host) -> str:
    """The line "Status" of `systemctl status`."""
    told = host.notifications.having("STATUS")
    return told[-1].fields["STATUS"] if told else ""


async def test_a_host_that_waits_for_its_first_server_says_why(new_host: NewHost) -> None:
    port = free_port()
    host = new_host(nats=f"nats://127.0.0.1:{port}")
    await host.launch()
    await until(lambda: shown(host, "waiting for NATS: "))
    assert f"127.0.0.1:{port}" in last_status(host)
    code, told = await state(host)
    assert (code, told["supervisor"]["ready"]) == (1, False)
    assert told["supervisor"]["connection"]["state"] == "waiting"
    assert f"127.0.0.1:{port}: connection refused" in told["supervisor"]["connection"]["reason"]
    assert "connection refused" in (await host.command("status")).stdout
    await asyncio.sleep(1.5)  # all that is looked at each second was looked at
    assert "ERROR" not in host.log_text()


async def test_replies_that_the_server_refuses_are_counted_as_failed_and_the_permission_is_named(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    config = NO_PERMISSION.format(permissions='{ publish: { deny: "_INBOX.>" } }')
    listen = f"127.0.0.1:{free_port()}"
    server = await start_server(config=config)
    nats = {"servers": [server.url], "user": "host", "password": "pw"}
    host = await start_host(sections=sections(listen, nats=nats))
    router = await start_router(user="router", password="pw")
    sent = [await router.send("echo", b"x") for _ in range(5)]

    async def counted() -> bool:  # not by a scrape: what one has seen as completed does not go back
        workers = (await state(host))[1]["workers"]
        return bool(sum(worker["connection"]["refused_replies"] for worker in workers) == 5)

    await until(counted)
    assert {request.verdict for request in sent} == {Verdict.SILENT}
    line = await host.log("_INBOX")
    assert " ERROR " in line.text
    errors = [line for line in host.log_text().splitlines() if " ERROR " in line and "_INBOX" in line]
    assert len(errors) <= 2, "once for each worker"
    _, told = await state(host)
    [route] = told["routes"]
    assert (route["completed"], route["failed"]["reply refused"]) == (0, 5)

    async def workers_say_so() -> bool:  # they write their counts with the next heartbeat
        counts = [worker["counts"] for worker in (await state(host))[1]["workers"]]
        return [sum(c[name] for c in counts) for name in ("completed", "failed")] == [0, 5]

    await until(workers_say_so)
    samples = await scrape(listen)
    refused = [samples[f'ajhost_nats_replies_refused_total{{slot="{slot}"}}'] for slot in (0, 1)]
    assert sum(refused) == 5
    assert samples['ajhost_tasks_completed_total{route="echo"}'] == 0
    assert samples['ajhost_tasks_failed_total{reason="reply refused",route="echo"}'] == 5
    assert samples['ajhost_task_running_seconds_count{route="echo"}'] == 5
    attempts = json.loads((await host.command("attempts", "--json")).stdout)
    assert [attempt["reason"] for attempt in attempts] == ["reply refused"] * 5


async def test_a_host_that_may_not_subscribe_is_not_ready_and_says_which_permission_is_missing(
    start_server: StartServer, new_host: NewHost
) -> None:
    config = NO_PERMISSION.format(permissions='{ subscribe: { deny: "CHORIA_AJ.H.T.>" } }')
    listen = f"127.0.0.1:{free_port()}"
    server = await start_server(config=config)
    nats = {"servers": [server.url], "user": "host", "password": "pw"}
    host = new_host(sections=sections(listen, nats=nats))
    await host.launch()
    line = await host.log("CHORIA_AJ.H.T.echo")
    assert "subscribe" in line.text.lower() or "subscription" in line.text.lower()

    async def told() -> bool:
        return "permission" in (await host.command("status")).stdout.lower()

    await until(told)
    code, report = await state(host)
    assert code == 1
    assert report["supervisor"]["ready"] is False
    assert {w["state"] for w in report["workers"]} <= {"starting", "disconnected"}
    assert (await fetch(listen, "/readyz")).status == 503
    assert host.notifications.having("READY") == []
