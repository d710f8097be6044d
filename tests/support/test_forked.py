"""Commands that are forked end as those that are executed, and with the tests."""

from __future__ import annotations

import shutil
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
    print(host.runtime, host.pid, *host.workers().values(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_hosts_end_with_tests_that_are_killed(nats_server: NatsServer, tmp_path: Path) -> None:
    script = KILLED.format(root=str(ROOT), directory=str(tmp_path), url=nats_server.url)
    try:
        told = await run(sys.executable, "-c", script)
        assert told.status == -signal.SIGKILL, told
        runtime, *pids = told.stdout.split()
        for pid in map(int, pids):
            await processes.gone(pid)
        shutil.rmtree(runtime)
    finally:  # what has not ended is not left to who comes next
        for directory in tmp_path.glob("host-*"):
            for process in processes.with_working_directory(directory):
                processes.send(process.pid, signal.SIGKILL)
