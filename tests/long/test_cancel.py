"""A thousand tasks cancelled at random moments, under load and kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.test_cancel import HANDLERS, cancel_at_random
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router

pytestmark = pytest.mark.long


async def test_each_of_a_thousand_cancelled_tasks_has_exactly_the_answer_that_says_so(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    workers = {"count": 2, "concurrency": 4}
    async with (
        Host(tmp_path, nats=nats_server.url, handlers=HANDLERS, sections={"workers": workers}) as host,
        Router(nats_server.url) as router,
    ):
        print(await cancel_at_random(host, router, wanted=1000, rate=120, every_kill=50))
