"""What comes back for what a handler does: results, exceptions, and what cannot be told as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.handlers import STRANGE
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

HANDLERS = {
    "echo": "echo",
    "echo-sync": "echo_sync",
    "describe": "describe",
    "describe-": "describe",
    "error": "error",
    "terminate": "terminate",
    "huge": "huge_result",
    "unserialisable": "unserialisable",
    "strange": "strange",
    "strange-sync": "strange_sync",
    "system-exit": "system_exit",
    "system-exit-sync": "system_exit_sync",
    "": "describe",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    """A router beside one host that serves every test of this module."""
    folder: Path = tmp_path_factory.mktemp("answers")
    async with (
        NatsServer(folder, config="max_payload: 65536") as server,
        Host(folder, nats=server.url, handlers=HANDLERS),
        Router(server.url) as router,
    ):
        yield router


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_bytes_come_back_as_they_are(router: Router) -> None:
    payload = bytes(range(256))
    for route in ("echo", "echo-sync"):
        reply = await router.request(route, payload)
        assert (reply.verdict, reply.body) == (Verdict.COMPLETE, payload)


async def test_a_null_payload_is_empty(router: Router) -> None:
    reply = await router.request("echo", None)
    assert (reply.verdict, reply.body) == (Verdict.COMPLETE, b"")


async def test_a_handler_sees_the_task(router: Router) -> None:
    seen = (await router.request("describe", b"hello", tries=3, max_tries=7, queue="Q", deadline=20)).json()
    assert (seen["type"], seen["queue"], seen["payload"]) == ("describe", "Q", "hello")
    assert (seen["tries"], seen["max_tries"]) == (3, 7)
    assert 10 < seen["remaining"] <= 20


async def test_prefix_and_catch_all_routes_serve_other_types(router: Router) -> None:
    prefixed = await router.request("describe-", b"", task_type="describe-daily")
    assert prefixed.json()["type"] == "describe-daily"
    for subject in ("CHORIA_AJ.H.T.catchall", "CHORIA.AJ.H.T.catchall"):
        reply = await router.request("", b"", subject=subject, task_type="anything:at:all")
        assert reply.json()["type"] == "anything:at:all"


async def test_an_exception_is_an_error_with_its_text(router: Router) -> None:
    reply = await router.request("error", {"text": "the disk is full"})
    assert reply.verdict is Verdict.ERROR
    assert reply.word == "handler error:"
    assert "RuntimeError" in reply.text
    assert "the disk is full" in reply.text


async def test_terminate_is_told_as_terminate(router: Router) -> None:
    reply = await router.request("terminate", {"text": "no such customer"})
    assert (reply.verdict, reply.text) == (Verdict.TERMINATE, "no such customer")


@pytest.mark.parametrize("route", ["strange", "strange-sync"])
@pytest.mark.parametrize("name", STRANGE)
async def test_a_strange_exception_is_an_honest_answer(router: Router, route: str, name: str) -> None:
    reply = await router.request(route, {"exception": name})
    if name == "EmptyTerminate":
        assert reply.verdict is Verdict.TERMINATE
    else:
        assert (reply.verdict, reply.word) == (Verdict.ERROR, "handler error:")
    assert len(reply.text.encode()) <= 1100
    assert "\n" not in reply.text
    assert (await router.request("echo", b"alive")).body == b"alive"


@pytest.mark.parametrize("route", ["system-exit", "system-exit-sync"])
async def test_sys_exit_in_a_handler_is_answered(router: Router, route: str) -> None:
    reply = await router.request(route, {})
    assert reply.verdict is Verdict.ERROR
    assert (await router.request("echo", b"alive")).body == b"alive"


async def test_what_json_cannot_say_ends_the_task_and_is_named(router: Router) -> None:
    reply = await router.request("unserialisable", {})
    assert reply.verdict is Verdict.TERMINATE
    assert reply.text == "invalid result: result.object: object cannot be encoded as JSON"


async def test_a_result_past_max_payload_is_terminated_with_both_sizes(router: Router) -> None:
    reply = await router.request("huge", {"bytes": 70_000})
    assert reply.verdict is Verdict.TERMINATE
    assert "70000" in reply.text
    assert "65536" in reply.text


async def test_a_result_that_could_not_be_stored_is_terminated(router: Router) -> None:
    reply = await router.request("huge", {"bytes": 60_000})  # 4/3 of it and the task exceed the limit
    assert reply.verdict is Verdict.TERMINATE
    assert (await router.request("huge", {"bytes": 40_000})).verdict is Verdict.COMPLETE


async def test_a_past_deadline_is_refused_at_once(router: Router) -> None:
    reply = await router.request("echo", b"", deadline=-1)
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "deadline exceeded:")


async def test_garbage_is_refused(router: Router) -> None:
    for body in (b"", b"{", b"[]", b'{"id": 1}', b"\xff\xfe"):
        request = await router.send_raw("CHORIA_AJ.H.T.echo", body, None)
        reply = await router.reply(request)
        assert (reply.verdict, reply.word) == (Verdict.ERROR, "bad request:"), body
