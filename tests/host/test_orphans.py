"""Workers whose supervisor was killed alone, and the next start: whatever they do, each request is answered in time."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from ajhost.ledger.layout import State
from tests.support import processes
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.router import Request, Router, Verdict
from tests.support.waiting import until

HANDLERS = {"echo": "echo", "work": "work", "block": "block_loop"}
ONE = {"workers": {"count": 1, "concurrency": 4}}
PATIENT = """
import os
from ajhost.roles.worker import worker

worker.ORPHAN_GRACE = 3600.0  # none leaves for another reason than those that are tested here


async def work(task):
    return os.getpid()
"""
SLOW = "import time\ntime.sleep({seconds})\n" + PATIENT


async def patient(start_host: StartHost, **routes: str) -> Host:
    """A host whose worker goes for no other reason; `work` tells its pid."""
    handlers = {"work": "app:work", **routes}
    return await start_host(handlers=handlers, modules={"app": PATIENT}, sections=ONE)


async def killed_alone(host: Host) -> int:
    """The supervisor; the pid of the worker that lives on."""
    (orphan,) = host.workers().values()
    host.send_signal(signal.SIGKILL)
    await host.wait()
    return orphan


async def answered(router: Router, requests: list[Request]) -> set[Verdict]:
    verdicts = {(await router.reply(request)).verdict for request in requests}
    assert not any(request.is_late for request in requests)
    return verdicts


async def test_what_came_to_an_orphan_that_hangs_runs_at_the_next_start(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=ONE)
    hanging = await router.send("block", {"block_ms": 8000}, deadline=30)
    await host.running(1)
    await killed_alone(host)
    record = tmp_path / "runs"
    unread = [await router.send("work", {"record": str(record)}, deadline=6) for _ in range(50)]
    await router.barrier()
    await host.restart()
    assert await answered(router, unread) == {Verdict.COMPLETE}
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE  # it goes on unharmed
    runs = [line.split()[0] for line in record.read_text().splitlines()]
    assert len(runs) == len(set(runs)) == 50


async def test_an_orphan_serves_until_the_next_start_does(start_host: StartHost, router: Router) -> None:
    host = await patient(start_host)
    orphan = await killed_alone(host)
    shown = await host.command("status")
    assert (shown.status, shown.stderr) == (
        3,
        f"no ajhost runs on {host.runtime}; of one that was killed there still are: worker 0 (pid {orphan}). "
        "They finish what they hold\n",
    )
    assert (await router.request("work")).json() == orphan
    await host.restart()
    await processes.gone(orphan)
    assert (await router.request("work")).json() in host.workers().values()


async def test_what_came_to_an_orphan_that_is_killed_runs_at_the_next_start(
    start_host: StartHost, router: Router
) -> None:
    """Nobody of its start is left who has its connection, and its start had nobody who keeps descriptors."""
    host = await patient(start_host, block="block_loop")
    orphan = await killed_alone(host)
    host.write_module("app", SLOW.format(seconds=2))
    await host.relaunch()
    await until(lambda: _sockets(host.pid) & _sockets(orphan))  # it has a duplicate of the connection
    blocked = await router.send("block", {"block_ms": 200}, deadline=20)
    unread = [await router.send("work", {}, deadline=10) for _ in range(50)]
    await router.barrier()
    os.kill(orphan, signal.SIGKILL)
    assert await answered(router, unread) == {Verdict.COMPLETE}
    assert (await router.reply(blocked)).verdict in (Verdict.ERROR, Verdict.COMPLETE)
    await host.ready()


def _sockets(pid: int) -> set[str]:
    """The sockets that a process has."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(descriptor))
    return {name for name in found if name.startswith("socket:")}


async def test_what_waits_for_the_next_start_expires_in_time_however_long_its_imports_take(
    start_host: StartHost, router: Router
) -> None:
    host = await patient(start_host, stuck="work")
    running = [await router.send("stuck", {"sleep_ms": 60_000}, deadline=60) for _ in range(4)]
    await host.running(4)
    waiting = [await router.send("work", {}, deadline=3) for _ in range(20)]
    await router.barrier()
    await until(lambda: host.in_ledgers(State.QUEUED) == 20)
    host.signal_all()
    await host.wait()
    await host.nothing_left()
    host.write_module("app", SLOW.format(seconds=6))
    await host.relaunch()
    assert await answered(router, running) == {Verdict.ERROR}
    assert await answered(router, waiting) == {Verdict.ERROR}
    await host.ready()
