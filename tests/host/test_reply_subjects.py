"""A host publishes answers with its own rights, so whoever sends a request must not choose what they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.support.factories import StartHost, StartRouter
from tests.support.nats import NatsServer, round_trip
from tests.support.router import Router, task_json

SUBJECT = "CHORIA_AJ.H.T.work"


async def _publish(client: Client, reply: str, record: Path) -> None:
    await client.publish(SUBJECT, task_json("work", {"record": str(record)}), reply=reply)
    await round_trip(client)


@pytest.mark.parametrize("workers", ["serve", "hang"])
async def test_no_answer_goes_to_the_servers_own_interfaces(
    jetstream: NatsServer, tmp_path: Path, start_host: StartHost, start_router: StartRouter, workers: str
) -> None:
    record = tmp_path / "runs"
    record.touch()
    host = await start_host(handlers={"work": "work", "block": "block_loop"}, sections={"workers": {"count": 1}})
    router = await start_router()
    await router.client.jetstream().add_stream(name="ORDERS", subjects=["orders"])
    if workers == "hang":  # the supervisor takes over what has not been read
        blocked = await router.send("block", {"block_ms": 4000}, deadline=20)
    for reply in ("$JS.API.STREAM.DELETE.ORDERS", "CHORIA_AJ.T.task", "CHORIA_AJ.H.T.work", "orders"):
        await _publish(router.client, reply, record)
    if workers == "hang":
        await router.reply(blocked)
    assert (await router.request("work", {}, deadline=20)).body
    await host.log("none that a host answers; the last is $JS.API.STREAM.DELETE.ORDERS")
    # an answer to a plain subject of the application's own is what it asked for
    while (await router.client.jetstream().stream_info("ORDERS")).state.messages != 1:
        pass
    assert len(record.read_text().splitlines()) == 1


async def test_with_prefixes_only_their_subjects_are_answered(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    record = tmp_path / "runs"
    record.touch()
    host = await start_host(handlers={"work": "work"}, sections={"nats": {"reply_prefixes": ["_INBOX", "_R_.a"]}})
    await _publish(router.client, "orders", record)
    await _publish(router.client, "_INBOXES.x", record)
    await host.log("none that a host answers")
    assert (await router.request("work", {})).body
    assert record.read_text() == ""
