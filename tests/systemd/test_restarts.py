"""The service comes back: at once, as often as it takes, and with nothing left over in systemd's store."""

from __future__ import annotations

import socket

from tests.support.nats import NatsServer
from tests.support.router import Router
from tests.systemd.lab import InstalledHost, Lab

HANDLERS = {"echo": "echo"}
DEATHS = 7
"""More than systemd's default start limit, 5 in 10 s, would forgive."""


async def test_systemd_does_not_pause_before_a_start_however_often_it_dies(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    dead: list[int] = []
    for _ in range(DEATHS):

        async def started() -> bool:
            return await host.pid() not in (0, *dead)

        await lab.until(started, "another supervisor")
        dead.append(await host.pid())
        await host.kill("KILL", dead[-1:])
    await lab.until_shows("NRestarts", str(DEATHS))
    await lab.until_shows("ActiveState", "active")
    assert (await router.request("echo", b"x")).body == b"x"
    pauses, failed = [], 0
    for record in await lab.journal("_PID=1", "UNIT=ajhost.service", "--boot"):
        at = int(record["__MONOTONIC_TIMESTAMP"])
        if record.get("UNIT_RESULT") == "signal":  # all processes have ended, those of ExecStopPost= too
            failed = at
        elif "Scheduled restart job" in record["MESSAGE"] and failed:
            pauses.append((at - failed) / 1e6)
            failed = 0
    assert await lab.show("RestartUSec") == "0"
    # between the two systemd does nothing but wait; a slow machine delays some of them, a pause of 0.1 s every one
    assert min(pauses[-DEATHS // 2 :]) < 0.1, pauses


async def test_a_start_that_fails_by_itself_is_tried_again_and_visible_meanwhile(
    lab: Lab, host: InstalledHost, nats_server: NatsServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        host.configure(nats_server.url, HANDLERS, {"http": {"listen": listen}})
        await lab.do("systemctl", "start", "--no-block", "ajhost")

        async def tried() -> bool:
            return await lab.show("NRestarts") != "0"

        await lab.until(tried, "a second try")

        async def told() -> bool:
            shown = (await lab.run("systemctl", "status", "ajhost")).stdout
            return "http.listen:" in shown and "(stop-post)" in shown

        await lab.until(told, "the status has the reason and the pause before the next try")
    await lab.until_shows("ActiveState", "active")
    assert await lab.show("ExecMainStatus") == "0"


async def test_a_socket_leaves_systemds_store_when_its_worker_does(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    stored = await lab.show("NFileDescriptorStore")
    assert int(stored) >= 2, "one for each worker"
    for _ in range(3):
        workers = set((await host.workers()).values())
        await host.kill("KILL", workers)

        async def replaced(gone: set[int] = workers) -> bool:
            serving = set((await host.workers()).values())
            return len(serving) == 2 and not serving & gone

        await lab.until(replaced, "two others serve")
        await lab.do("systemctl", "reload", "ajhost")
        assert (await router.request("echo", b"x")).body == b"x"
    await lab.until_shows("NFileDescriptorStore", stored)
    await host.stop()
    await lab.until_shows("NFileDescriptorStore", "0")
