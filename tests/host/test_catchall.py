"""Catch-all routers and a host without a catch-all handler: `[nats] catchall`."""

from __future__ import annotations

import pytest

from tests.support.factories import StartHost
from tests.support.router import Router, Verdict

SPELLINGS = ("CHORIA_AJ.H.T.catchall", "CHORIA.AJ.H.T.catchall")
HANDLERS = {"email:new": "describe", "report:": "echo"}


@pytest.mark.parametrize("subject", SPELLINGS)
async def test_tasks_of_a_catch_all_router_go_to_the_handlers_of_their_types(
    start_host: StartHost, router: Router, subject: str
) -> None:
    await start_host(handlers=HANDLERS, sections={"nats": {"catchall": True}})
    reply = await router.request("", task_type="email:new", subject=subject)
    assert reply.json()["type"] == "email:new"
    reply = await router.request("", b"body", task_type="report:daily", subject=subject)
    assert reply.body == b"body"
    reply = await router.request("", task_type="sms:new", subject=subject)
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "unknown task type:")


@pytest.mark.parametrize("subject", SPELLINGS)
async def test_without_it_a_catch_all_router_reaches_nobody(
    start_host: StartHost, router: Router, subject: str
) -> None:
    await start_host(handlers=HANDLERS)
    reply = await router.request("", task_type="email:new", subject=subject)
    assert reply.verdict is Verdict.NO_RESPONDERS


async def test_a_reload_brings_it(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS)
    host.configure(HANDLERS, {"nats": {"catchall": True}})
    reloaded = await host.reload()
    assert reloaded.status == 0, reloaded
    reply = await router.request("", task_type="email:new")
    assert reply.json()["type"] == "email:new"
