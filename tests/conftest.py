"""Fixtures of the whole suite: real peers, each test its own."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from ajhost.adapters.logs.log_routing import HostLogger
from tests.support import checked_ledger, checked_request
from tests.support.control_group import control_group
from tests.support.factories import Enter, NewHost, Started, StartHost, StartRouter, StartServer
from tests.support.host import Host
from tests.support.host_parts import HostParts, host_parts
from tests.support.nats import JetStream, NatsServer
from tests.support.order import place
from tests.support.router import Router

# Until all tests are collected nearly nothing becomes garbage, and each collection walks through all of it: that takes
# half of the time, in each process that runs tests.
gc.disable()
checked_ledger.install()
checked_request.install()
# how long an example takes says something about the machine
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")

ROOT = Path(__file__).parent
STARTED, FAILURE = pytest.StashKey[Started](), pytest.StashKey[BaseException]()


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server of the test's own, without storage."""
    async with NatsServer(tmp_path) as server:
        yield server


@pytest.fixture
async def jetstream(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server with JetStream, as routers need it."""
    async with NatsServer(tmp_path, jetstream=JetStream.ON) as server:
        yield server


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> list[NatsServer]:
    """The servers that the test's parameters are: they run before what the test starts, and longer."""
    named = [name for name in ("nats_server", "jetstream") if name in request.fixturenames]
    return [request.getfixturevalue(name) for name in named]


@pytest.fixture
async def started(request: pytest.FixtureRequest, tmp_path: Path, servers: list[NatsServer]) -> AsyncIterator[Started]:
    """What the fixtures below start. It ends with the test, the last one first, and as the test fares."""
    request.node.stash[STARTED] = made = Started(tmp_path, servers)
    yield made
    await made.end(request.node.stash.get(FAILURE, None))


@pytest.fixture
def start_server(started: Started) -> StartServer:
    """`server = await start_server(config=...)`: a nats-server that takes clients."""
    return started.start_server


@pytest.fixture
def start_host(started: Started) -> StartHost:
    """`host = await start_host(handlers=..., sections=...)`: a host that is ready, at the test's server."""
    return started.start_host


@pytest.fixture
def new_host(started: Started) -> NewHost:
    """`host = new_host(...)`: a host with its files, not started: `await host.run_to_end()`, `async with host:`."""
    return started.new_host


@pytest.fixture
def start_router(started: Started) -> StartRouter:
    """`router = await start_router(user=...)`: a router at the test's server, or at `url`."""
    return started.start_router


@pytest.fixture
def enter(started: Started) -> Enter:
    """`partition = await enter(Partition(server.port))`: anything that the test does not leave before its end."""
    return started.enter


@pytest.fixture
async def host(started: Started, nats_server: NatsServer) -> Host:
    """A host with the route `echo` at a server of the test's own."""
    return await started.start_host(nats=nats_server.url)


@pytest.fixture
async def router(started: Started, nats_server: NatsServer) -> AsyncIterator[Router]:
    """A router at the test's server; it leaves before a host does."""
    async with Router(nats_server.url) as made:
        yield made


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[HostParts]:
    """What surrounds a worker, for tests that play the worker or the supervisor themselves."""
    async with host_parts(tmp_path) as made:
        yield made


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """The root logger without a journal; as it was, afterwards."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    logger = logging.getLogger()
    before, level, raising = logger.handlers[:], logger.level, logging.raiseExceptions
    last, call, kind = logging.lastResort, logging.Logger.callHandlers, logging.Logger.manager.loggerClass
    yield logger
    # what `logs.configure` makes of the host's own loggers, for whoever reads records in this process later
    logging.lastResort, logging.Logger.manager.loggerClass = last, kind
    logging.Logger.callHandlers = call  # type: ignore[method-assign]
    for known in logging.Logger.manager.loggerDict.values():
        if isinstance(known, HostLogger):
            known.__class__ = logging.Logger  # type: ignore[assignment]
    logger.handlers[:] = before
    logger.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side only tests are run whose names are the same in every process: an address in one is not."""
    found = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if found:
        raise pytest.UsageError(f"these names differ from process to process, give them ids: {found[:3]}")
    items.sort(key=lambda item: place(item.path.relative_to(ROOT)))


def pytest_collection_finish() -> None:
    """From here on garbage is collected, among what is made from here on."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadscope` means tests one by one, but for those that share something."""
    if config.getoption("dist") != "loadscope":
        return None
    from tests.support.xdist_scheduler import TestsThatShare  # not at the top: xdist need not be there

    return TestsThatShare(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """A test that fails shows the logs of what it started."""
    try:
        return (yield)
    except BaseException as error:
        item.stash[FAILURE] = error
        for peer in item.stash[STARTED].explaining if STARTED in item.stash else ():
            peer.explain(error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What handlers log need not be text that can be encoded, as a report must be on its way between processes."""
    report = yield
    report.sections = [(title, text.encode(errors="replace").decode()) for title, text in report.sections]
    return report


@pytest.fixture
def half_a_cpu() -> Iterator[Path]:
    """A real control group, of whichever version is here, with a quota of half a CPU."""
    with control_group("cpu", {"cpu.cfs_quota_us": "50000"}, {"cpu.max": "50000 100000"}) as group:
        yield group
