"""Each test runs on the loop of workers, and on the standard one."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop

from tests.roles.worker.executor.harness import ExecutorHarness


@pytest.hookimpl(optionalhook=True)  # of pytest-asyncio; one that has no such hook runs all on the standard loop
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def host() -> AsyncIterator[ExecutorHarness]:
    """Whatever a test started has ended, with one answer and one slot given back, when the test ends."""
    host = ExecutorHarness(threads=3)
    yield host
    await host.until(lambda: not host.executor.busy)
    counts = Counter((event.what, event.index) for event in host.events)
    assert set(counts.values()) <= {1}
    finished, freed = ({i for w, i in counts if w == what} for what in ("finish", "freed"))
    assert finished == freed - host.others


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Threads of a test wait for it; it is open when the test has ended, whatever its result."""
    gate = threading.Event()
    yield gate
    gate.set()
