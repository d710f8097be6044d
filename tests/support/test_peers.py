"""The peers of the tests are what they claim to be: a verdict that cannot be wrong is worth nothing."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.factories import Enter, StartRouter
from tests.support.load_generator import ajload, missing
from tests.support.nats import NatsServer, NatsServerFailed, round_trip
from tests.support.proxy import Partition
from tests.support.router import Router, SilentError, Verdict

NO_AJLOAD = missing()


@pytest.fixture
async def responder(nats_server: NatsServer) -> AsyncIterator[Client]:
    """Answers on `CHORIA_AJ.H.T.*` as its route says."""
    client = Client()
    await client.connect(nats_server.url, max_reconnect_attempts=-1)

    async def answer(message: Msg) -> None:
        match message.subject.rpartition(".")[2]:
            case "error":
                await client.publish(message.reply, headers={"AJ-Error": "worker died: by a signal"})
            case "terminate":
                headers = {"AJ-Error": "no", "AJ-Terminate": "for good"}
                await client.publish(message.reply, b"dropped", headers=headers)
            case "blank":
                await client.publish(message.reply, b"result", headers={"AJ-Error": " "})
            case "twice":
                await client.publish(message.reply, b"first")
                await client.publish(message.reply, b"second")
            case "silent":
                pass
            case _:
                task = json.loads(message.data)
                assert (message.headers or {})["AJ-Content-Type"] == "application/x-asyncjobs-task+json"
                await client.publish(message.reply, task["id"].encode() + base64.b64decode(task["payload"] or ""))

    await client.subscribe("CHORIA_AJ.H.T.*", cb=answer)
    await round_trip(client)
    yield client
    await client.close()


async def test_each_kind_of_answer_gets_its_verdict(responder: Client, router: Router) -> None:
    echo = await router.request("echo", b"\0payload", id="the-id")
    assert (echo.verdict, echo.body) == (Verdict.COMPLETE, b"the-id\0payload")
    error = await router.request("error")
    assert (error.verdict, error.word) == (Verdict.ERROR, "worker died:")
    terminate = await router.request("terminate")
    assert (terminate.verdict, terminate.text) == (Verdict.TERMINATE, "for good")
    assert (await router.request("blank")).verdict is Verdict.COMPLETE
    assert (await router.request("no.such")).verdict is Verdict.NO_RESPONDERS
    assert router.unknown == 0


async def test_a_request_without_an_answer_is_silent(responder: Client, router: Router) -> None:
    with pytest.raises(SilentError):
        await router.request("silent", deadline=0)


async def test_second_answers_are_counted(responder: Client, router: Router) -> None:
    async with router.load(("twice", "echo", "silent"), rate=200, count=30, deadline=0) as load:
        pass
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: 20, Verdict.SILENT: 10}
    assert report.duplicates == 10
    assert len(report.silent) == 10


async def test_a_load_holds_its_rate(responder: Client, router: Router) -> None:
    async with router.load("echo", lambda number: str(number).encode(), rate=500) as load:
        await load.sent(500)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}
    assert report.duplicates == 0
    first, last = report.requests[0], report.requests[-1]
    assert len(report.requests) / (last.scheduled - first.scheduled) == pytest.approx(500, rel=0.2)


async def test_a_server_comes_back_on_its_port_after_a_kill(
    nats_server: NatsServer, responder: Client, router: Router
) -> None:
    before = nats_server.pid
    await nats_server.restart()
    assert nats_server.pid != before
    await round_trip(responder)
    await router.barrier()
    assert (await router.request("echo")).verdict is Verdict.COMPLETE


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, config='tls { cert_file: "missing.pem" }')
    with pytest.raises(NatsServerFailed, match="missing"):
        await server.start()
    await server.stop()


async def test_a_stalled_network_delivers_after_it_heals(
    nats_server: NatsServer, responder: Client, enter: Enter, start_router: StartRouter
) -> None:
    network = await enter(Partition(nats_server.port))
    router = await start_router(network.url)
    assert (await router.request("echo")).verdict is Verdict.COMPLETE
    network.stall()
    request = await router.send("echo", deadline=20)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asyncio.shield(request.first)
    network.heal()
    assert (await router.reply(request)).verdict is Verdict.COMPLETE


async def test_a_cut_network_takes_new_connections(
    nats_server: NatsServer, responder: Client, enter: Enter, start_router: StartRouter
) -> None:
    network = await enter(Partition(nats_server.port))
    router = await start_router(network.url)
    await network.cut()
    await router.barrier()
    assert (await router.request("echo")).verdict is Verdict.COMPLETE


@pytest.mark.skipif(NO_AJLOAD is not None, reason=str(NO_AJLOAD))
async def test_the_load_generator_in_c_finds_what_goes_wrong(nats_server: NatsServer, responder: Client) -> None:
    figures = await ajload(nats_server.url, "-t", "echo", "-n", "200", "--echo-id")
    assert (figures["ok"], figures["bad_body"]) == (200, 0)
    figures = await ajload(
        nats_server.url, "-t", "silent,error,twice", "-n", "30", "-r", "500", "-d", "0", "--timeout", "1"
    )
    assert (figures["timeouts"], figures["aj_error"], figures["duplicates"]) == (10, 10, 10)
