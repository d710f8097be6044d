"""Commands that are forked end as those that are executed, and with the tests."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.support import processes
from tests.support.host import ROOT
from tests.support.nats import NatsServer
from tests.support.program import run

KILLED = """
import asyncio, os, pathlib, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/daemon"]
from tests.support.host import Host

async def main():
    host = Host(pathlib.Path({directory!r}), nats={url!r})
    await host.start()
    print(host.pid, *host.workers().values(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_hosts_end_with_tests_that_are_killed(nats_server: NatsServer, tmp_path: Path) -> None:
    script = KILLED.format(root=str(ROOT), directory=str(tmp_path), url=nats_server.url)
    told = await run(sys.executable, "-c", script)
    assert told.status == -signal.SIGKILL, told
    for pid in map(int, told.stdout.split()):
        await processes.gone(pid)
