"""A host serves and stops whatever its launcher has closed, blocked or ignored."""

from __future__ import annotations

import sys

import pytest

from tests.support.factories import NewHost, StartHost
from tests.support.program import run
from tests.support.router import Router
from tests.support.sweep import sweep

LAUNCHER = """
import os, signal, sys
{0}
os.execvp(sys.argv[1], sys.argv[1:])
"""
CASES = {
    "stderr is closed": "os.close(2)",
    "all streams are closed": "os.closerange(0, 3)",
    "signals are blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "signals are ignored": "for n in (1, 2, 13, 15, 17): signal.signal(n, signal.SIG_IGN)",
}


@pytest.mark.parametrize("case", sweep(CASES, "all streams are closed", "signals are ignored"))
async def test_a_check_says_the_same_though(new_host: NewHost, case: str) -> None:
    host = new_host(nats="nats://127.0.0.1:4222")
    program = (sys.executable, "-m", "ajhost", "check", "-c", str(host.file))
    checked = await run(sys.executable, "-c", LAUNCHER.format(CASES[case]), *program, env=host.environment)
    assert checked.status == 0, checked


@pytest.mark.parametrize("case", CASES)
async def test_a_host_serves_replaces_workers_and_stops_though(
    start_host: StartHost, router: Router, case: str
) -> None:
    host = await start_host(
        sections={"workers": {"count": 1}}, launcher=(sys.executable, "-c", LAUNCHER.format(CASES[case]))
    )
    assert (await router.request("echo", b"x")).body == b"x"
    before = host.workers()
    host.kill(0)
    while host.workers() in ({}, before):
        assert (await router.request("echo", b"x")).body == b"x"
    if "closed" not in case:
        await host.log(f"worker 0 (pid {before[0]}) died: SIGKILL")
    assert not host.output.having("left something behind")
    assert await host.terminate() == 0
