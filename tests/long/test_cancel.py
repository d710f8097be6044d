"""A thousand tasks cancelled at random moments, under load and kills."""

from __future__ import annotations

import pytest

from tests.host.test_cancel import HANDLERS, cancel_at_random
from tests.support.factories import StartHost
from tests.support.router import Router

pytestmark = pytest.mark.long


async def test_each_of_a_thousand_cancelled_tasks_has_exactly_the_answer_that_says_so(
    start_host: StartHost, router: Router
) -> None:
    workers = {"count": 2, "concurrency": 4}
    host = await start_host(handlers=HANDLERS, sections={"workers": workers})
    print(await cancel_at_random(host, router, wanted=1000, rate=120, every_kill=50))
