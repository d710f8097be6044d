"""What systemd knows of the service while it lives: its states, its status line, how long it may take to stop."""

from __future__ import annotations

import asyncio
import os

from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict
from tests.systemd.conftest import drop_in
from tests.systemd.lab import APPLICATION, InstalledHost, Lab

HANDLERS = {"echo": "echo", "work": "work"}


async def test_the_status_line_counts_workers_and_tasks_as_they_come_and_go(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    assert await lab.show("StatusText") == "2 of 2 workers serve, 0 tasks run"
    running = [await router.send("work", {"sleep_ms": 2000}) for _ in range(3)]
    await lab.until_shows("StatusText", "2 of 2 workers serve, 3 tasks run")
    assert {(await router.reply(request)).verdict for request in running} == {Verdict.COMPLETE}
    await lab.until_shows("StatusText", "2 of 2 workers serve, 0 tasks run")


async def test_a_reload_is_a_state_until_it_is_decided_whoever_asked_for_it(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    gate = lab.path(f"{APPLICATION}/gate")
    lab.write(
        f"{APPLICATION}/gated.py",
        f"open({str(APPLICATION + '/gate')!r}).close()  # a pipe: waits until somebody writes\n"
        "async def echo(task): return task.payload\n",
    )
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    supervisor = await host.pid()
    host.configure(nats_server.url, {"echo": "gated:echo"})
    await lab.do("mkfifo", "-m", "644", f"{APPLICATION}/gate")
    try:
        for command in (("kill", "-HUP", str(supervisor)), ("systemctl", "reload", "--no-block", "ajhost")):
            await lab.do(*command)
            await lab.until_shows("ActiveState", "reloading")
            # opening it waits for the import, and lets it go on
            await asyncio.to_thread(lambda: os.close(os.open(gate, os.O_WRONLY)))
            await lab.until_shows("ActiveState", "active")
    finally:
        gate.unlink()
    assert await host.pid() == supervisor
    assert (await router.request("echo", b"new")).body == b"new"
    assert (await router.request("work")).verdict is Verdict.NO_RESPONDERS


async def test_a_drain_may_take_longer_than_systemd_allows_a_stop(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await drop_in(lab, "impatient", "[Service]\nTimeoutStopSec=1\n")
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    running = [await router.send("work", {"sleep_ms": 2500}, deadline=20) for _ in range(8)]
    await lab.until_shows("StatusText", "2 of 2 workers serve, 8 tasks run")
    await lab.do("systemctl", "stop", "--no-block", "ajhost")
    await lab.until_shows("StatusText", "draining: 2 workers, 8 tasks run")
    assert await lab.show("ActiveState") == "deactivating"
    assert {(await router.reply(request)).verdict for request in running} == {Verdict.COMPLETE}
    await lab.until_shows("ActiveState", "inactive")
    assert await lab.show("Result") == "success"
    assert not await lab.journal("UNIT=ajhost.service", "UNIT_RESULT=timeout")


async def test_a_supervisor_that_was_told_to_end_says_that_it_stops(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    supervisor = await host.pid()
    running = await router.send("work", {"sleep_ms": 2000})
    await lab.until_shows("StatusText", "2 of 2 workers serve, 1 tasks run")
    await host.kill("TERM", [supervisor])
    await lab.until_shows("SubState", "stop-sigterm")
    assert (await router.reply(running)).verdict is Verdict.COMPLETE

    async def back() -> bool:
        return await host.pid() not in (0, supervisor)

    # nobody but the administrator ends it for good
    await lab.until(back, "started again")
    await lab.until_shows("ActiveState", "active")
    assert (await router.request("echo", b"again")).body == b"again"


async def test_a_worker_that_hangs_for_longer_than_the_watchdog_waits_is_not_systemds_affair(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await drop_in(lab, "watchdog", "[Service]\nWatchdogSec=2\n")
    host.configure(nats_server.url, {**HANDLERS, "gil": "hold_gil"})
    await host.start()
    supervisor = await host.pid()
    # it is ended a second after its deadline; systemd would have acted before
    reply = await router.request("gil", {"block_ms": 60_000}, deadline=3)
    assert reply.verdict is Verdict.ERROR
    await lab.until_logged("hangs past the kill grace", "-u", "ajhost", f"_PID={supervisor}")
    assert (await router.request("echo", b"x")).body == b"x"
    assert (await host.pid(), await lab.show("NRestarts")) == (supervisor, "0")
