"""Under a service manager that keeps sockets: whoever dies together, what had not started runs after the restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.factories import Enter
from tests.support.fd_store import KeptHost
from tests.support.kill_scenarios import (
    WORKERS,
    Fault,
    a_worker_then_the_supervisor,
    endure,
    everybody_and_the_next_two_starts,
    everybody_at_once,
    everybody_while_a_worker_hangs,
)
from tests.support.nats import NatsServer
from tests.support.router import Router
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (everybody_at_once, 1),
        (everybody_and_the_next_two_starts, 1),
        (a_worker_then_the_supervisor, 1),
        (everybody_while_a_worker_hangs, 1),
    ],
)
async def test_nobody_is_silent_and_nothing_runs_twice(
    nats_server: NatsServer, tmp_path: Path, fault: Fault, times: int
) -> None:
    await endure(nats_server, tmp_path, fault, times)


async def test_the_store_holds_one_socket_of_each_process(
    nats_server: NatsServer, tmp_path: Path, enter: Enter, router: Router
) -> None:
    host = await enter(KeptHost(tmp_path, nats=nats_server.url, sections=WORKERS))
    assert len(host.store.names) == len(set(host.store.names)) == 4
    before = set(host.store.names)
    await nats_server.restart()
    # each has connected again, and for good: a server that ends may take a connection first
    await until(lambda: host.log_text().count("connected again") == 4)
    await until(lambda: len(host.store.names) == 4 and not before & set(host.store.names))
    kept = set(host.store.names)
    await router.barrier()
    host.kill(0)
    await host.log("serves, generation 1", since=len(host.output.lines))
    await until(lambda: len(host.store.names) == 4 and len(kept & set(host.store.names)) == 3)
