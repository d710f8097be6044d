"""Access that is lost and comes back: passwords, keys and JWTs that change, expire, are revoked or half written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.connection.conftest import StartWatched
from tests.support.factories import StartHost, StartRouter, StartServer
from tests.support.operator_mode import Operator, user_identity, write_secret
from tests.support.reported_state import (
    CONNECTED_STATE,
    cut_off,
    listens,
    says_the_truth,
    subscribed_again,
    with_pages,
)
from tests.support.router import Router, Verdict

HANDLERS = {"echo": "echo", "work": "work"}
BACK = 6.0
"""Seconds in which every worker is subscribed once it may be."""


def _users(password: str) -> str:
    return f"authorization {{ users = [{{user: host, password: {password}}}, {{user: router, password: r}}] }}"


@asynccontextmanager
async def _in_hand(router: Router, count: int = 8) -> AsyncIterator[None]:
    """Requests that are with the host before the block, and whose replies must have come after it."""
    requests = [await router.send("work", {"sleep_ms": 1500}, deadline=40) for _ in range(count)]
    await router.barrier()
    assert (await router.request("echo", b"x")).body == b"x"  # all are handed over
    yield
    replies = [await router.reply(request) for request in requests]
    assert {reply.verdict for reply in replies} == {Verdict.COMPLETE}


@pytest.mark.parametrize("locked_out", [1.0, 10.0])
async def test_a_password_that_is_changed_at_the_server_and_changed_back(
    start_watched: StartWatched, start_router: StartRouter, locked_out: float
) -> None:
    server, host, pages = await start_watched(
        HANDLERS, config=_users("one"), count=8, nats={"user": "host", "password": "one"}
    )
    router = await start_router(user="router", password="r")
    before = host.workers()
    async with _in_hand(router):
        await server.reload(_users("two"))
        since = time.monotonic()
        await cut_off(server, 12.0)
        said = await says_the_truth(host, pages, 0, 8)
        assert "uthorization" in said.reason
        assert "one" not in said.reason.split()
        await asyncio.sleep(max(0.0, locked_out - (time.monotonic() - since)))
        await server.reload(_users("one"))
        await subscribed_again(server, 8, BACK)
        await says_the_truth(host, pages, 8)
    assert host.workers() == before


async def test_a_password_that_is_changed_at_the_server_and_then_in_the_settings(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = with_pages(nats={"user": "host", "password": "one"})
    server = await start_server(config=_users("one"), monitored=True)
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(user="router", password="r")
    async with _in_hand(router):
        await server.reload(_users("two"))
        await cut_off(server, 12.0)
        await says_the_truth(host, listens(sections), 0, 2)
        host.configure(HANDLERS, sections | {"nats": {"user": "host", "password": "two"}})
        since = time.monotonic()
        result = await host.reload()
        assert result.status == 0, result
        await subscribed_again(server, 2, BACK, since=since)
        await says_the_truth(host, listens(sections), 2)


async def test_a_password_that_lets_us_in_again_is_taken_by_a_reload_that_is_rejected(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = with_pages(nats={"user": "host", "password": "one"})
    server = await start_server(config=_users("one"), monitored=True)
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(user="router", password="r")
    async with _in_hand(router):
        before = host.workers()
        await server.reload(_users("two"))
        await cut_off(server, 12.0)
        host.configure({"echo": "nowhere:nothing"}, sections | {"nats": {"user": "host", "password": "two"}})
        assert (await host.reload()).status == 1
        await subscribed_again(server, 2, BACK)
        await host.log("supervisor: connected again")
        said = await says_the_truth(host, listens(sections), 2)
        assert said.connections["supervisor"]["state"] == CONNECTED_STATE  # type: ignore[index]
        assert host.workers() == before
    host.kill(0)
    await subscribed_again(server, 2, BACK)  # who is forked from now on gets in, too


@pytest.mark.parametrize("kind", ["password_file", "token_file", "nkey"])
async def test_a_secret_that_is_changed_at_the_server_and_then_in_its_file(
    tmp_path: Path, start_watched: StartWatched, kind: str
) -> None:
    one, two = user_identity(), user_identity()
    file = tmp_path / "secret"

    def config(which: str, public: str) -> str:
        match kind:
            case "nkey":
                return f"authorization {{ users = [{{nkey: {public}}}] }}"
            case "token_file":
                return f"authorization {{ token: {which} }}"
            case _:
                return _users(which)

    texts = (one.seed, two.seed) if kind == "nkey" else ("one\n", "two\n")
    access: dict[str, Any] = {kind: write_secret(file, texts[0])}
    if kind == "password_file":
        access["user"] = "host"
    server, host, pages = await start_watched(HANDLERS, config=config("one", one.public), nats=access)
    await server.reload(config("two", two.public))
    await cut_off(server, 12.0)
    await says_the_truth(host, pages, 0, 2)
    write_secret(file, texts[1])
    await subscribed_again(server, 2, BACK)  # no reload was needed
    await says_the_truth(host, pages, 2)
    for secret in texts:
        assert secret.strip() not in host.log_text().split()


async def test_a_jwt_that_expires_comes_back_with_the_new_file(
    tmp_path: Path, start_watched: StartWatched, start_router: StartRouter
) -> None:
    operator = Operator()
    file = write_secret(tmp_path / "host.creds", operator.user("host", lasts=8))
    mine = write_secret(tmp_path / "router.creds", operator.user("router"))
    server, host, pages = await start_watched(HANDLERS, config=operator.config(), nats={"creds": file})
    router = await start_router(user_credentials=str(mine))
    await says_the_truth(host, pages, 2)
    async with _in_hand(router):
        await cut_off(server, 12.0)
        said = await says_the_truth(host, pages, 0, 2)
        assert "xpired" in said.reason or "uthori" in said.reason
        await host.log("Authorization Violation; the JWT expired at ")
        await asyncio.sleep(3)
        write_secret(file, operator.user("host"))
        await subscribed_again(server, 2, BACK)
        await says_the_truth(host, pages, 2)


async def test_a_user_that_is_revoked_comes_back_with_another_ones_file(
    tmp_path: Path, start_watched: StartWatched, start_router: StartRouter
) -> None:
    operator, user = Operator(), user_identity()
    file = write_secret(tmp_path / "host.creds", operator.user("host", identity=user))
    mine = write_secret(tmp_path / "router.creds", operator.user("router"))
    server, host, pages = await start_watched(HANDLERS, config=operator.config(), nats={"creds": file})
    router = await start_router(user_credentials=str(mine))
    async with _in_hand(router):
        operator.revoke(user)
        await server.reload(operator.config())
        await cut_off(server, 12.0)
        await says_the_truth(host, pages, 0, 2)
        await asyncio.sleep(3)
        write_secret(file, operator.user("host"))
        await subscribed_again(server, 2, BACK)
        await says_the_truth(host, pages, 2)
