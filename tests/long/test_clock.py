"""A clock that is ahead of the routers', on a real host: it takes half a minute of requests to learn that."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.factories import Enter, StartHost
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict, headers_of, new_id, rfc3339, task_json

pytestmark = pytest.mark.long


class _Behind(Router):
    """A router whose clock is 10 s behind this machine's."""

    async def ask(self) -> Verdict:
        now = time.time() - 10.0
        request = await self.send_raw(
            "CHORIA_AJ.H.T.echo",
            task_json("echo", b"x", tried=rfc3339(now)),
            headers_of(int(now + 6)),
            id=new_id(),
        )
        return (await self.reply(request)).verdict


async def test_what_one_worker_has_learned_of_the_clock_all_know_after_a_reload_too(
    nats_server: NatsServer, start_host: StartHost, enter: Enter
) -> None:
    host = await start_host(handlers={"echo": "echo"})
    router = await enter(_Behind(nats_server.url))
    end = time.monotonic() + 45.0
    while await router.ask() is not Verdict.COMPLETE:
        assert time.monotonic() < end
        await asyncio.sleep(0.2)  # a router's pace: what a worker learns takes half a minute of requests
    await host.log("this clock is 10.")
    for _ in range(2):
        assert (await host.reload()).status == 0
        assert [await router.ask() for _ in range(60)] == [Verdict.COMPLETE] * 60
