"""What all tests of a module share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.nats import NatsServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """A nats-server for the tests of a module, which run in one loop."""
    async with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running
