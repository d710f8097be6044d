"""The service under a real systemd: readiness, watchdog, reload, deaths, limits, and what it keeps over them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.support.nats import NatsServer, free_port, nats_server_binary
from tests.support.router import Router, Verdict
from tests.systemd.conftest import drop_in
from tests.systemd.lab import APPLICATION, InstalledHost, Lab

HANDLERS = {"echo": "echo", "work": "work", "leak": "leak"}
WATCHDOG = 2.0
ROOMY = {"workers": {"backlog": 1000}}
"""What arrives during a restart must find room afterwards, on a machine that is slow to start too."""


async def restarts(lab: Lab) -> int:
    """How often systemd has restarted the unit by itself."""
    return int(await lab.show("NRestarts"))


async def test_ready_means_that_tasks_are_served_and_the_status_says_so(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    assert (await router.request("echo", b"at once")).body == b"at once"
    assert "2 of 2 workers serve" in await lab.show("StatusText")
    called = await lab.do("ajhost", "call", "echo", "by hand")
    assert called.strip() == "by hand"
    assert sorted(await host.workers()) == sorted({w["slot"] for w in (await host.status())["workers"]})


async def test_no_process_but_the_supervisor_can_speak_to_systemd(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, {"environment": "output_handlers:environment"})
    await host.start()
    seen = (await router.request("environment")).json()["environment"]
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"} & set(seen)
    supervisor = await host.pid()
    for pid in await lab.processes():
        if pid != supervisor:
            environment = await lab.do("cat", f"/proc/{pid}/environ")
            assert "NOTIFY_SOCKET" not in environment
            assert "LISTEN_FDS" not in environment


async def test_a_stopped_supervisor_is_restarted_by_the_watchdog_and_leaves_nothing_unanswered(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await drop_in(lab, "watchdog", f"[Service]\nWatchdogSec={WATCHDOG}\n")
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    before = await restarts(lab)
    running = [await router.send("work", {"sleep_ms": 60_000}, deadline=20) for _ in range(4)]
    await router.barrier()
    await _running(host, 4)
    supervisor, run = await host.pid(), await lab.show("InvocationID")
    await host.kill("STOP", [supervisor])
    assert (await router.request("echo", b"workers serve on")).body == b"workers serve on"
    replies = [await router.reply(request) for request in running]
    assert {(reply.verdict, reply.word) for reply in replies} == {(Verdict.ERROR, "worker died:")}
    await lab.until_shows("ActiveState", "active")
    assert (await router.request("echo", b"again")).body == b"again"
    assert await restarts(lab) == before + 1
    assert await lab.journal("UNIT_RESULT=watchdog", f"INVOCATION_ID={run}")
    stack = [record["MESSAGE"] for record in await lab.journal("-u", "ajhost", f"_PID={supervisor}")]
    assert "Fatal Python error: Aborted" in stack, "where it was"


async def test_a_stopped_worker_is_replaced_and_systemd_sees_nothing(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await drop_in(lab, "watchdog", f"[Service]\nWatchdogSec={WATCHDOG}\n")
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    supervisor, before = await host.pid(), await restarts(lab)
    slot, pid = next(iter((await host.workers()).items()))
    await host.kill("STOP", [pid])
    requests = [await router.send("echo", b"x", deadline=10) for _ in range(50)]
    assert {(await router.reply(request)).verdict for request in requests} <= {Verdict.COMPLETE}

    async def replaced() -> bool:
        return (await host.workers()).get(slot, pid) != pid

    await lab.until(replaced, "the stopped worker is replaced")
    assert (await host.pid(), await restarts(lab)) == (supervisor, before)
    assert await lab.show("ActiveState") == "active"


async def test_a_reload_returns_when_it_is_decided_and_fails_when_it_is_rejected(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    supervisor = await host.pid()
    host.configure(nats_server.url, {**HANDLERS, "second": "echo"}, {"workers": {"count": 3}})
    assert (await lab.run("systemctl", "reload", "ajhost")).status == 0
    assert (await router.request("second", b"new")).body == b"new"
    assert len(await host.workers()) == 3
    host.configure(nats_server.url, {"echo": "no_such_function"})
    assert (await lab.run("systemctl", "reload", "ajhost")).status != 0
    assert "no_such_function" in await lab.log()
    assert await lab.show("ActiveState") == "active"
    lab.path(host.file).write_text("[nats\n")
    assert (await lab.run("systemctl", "reload", "ajhost")).status != 0
    assert (await router.request("second", b"old")).body == b"old"
    assert await host.pid() == supervisor


async def test_kill_9_of_every_process_three_times_under_load_silences_nothing(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    async with router.load("work", {"sleep_ms": 20}, rate=100, deadline=20) as load:
        for _ in range(3):
            await load.sent(100)
            supervisor = await host.pid()
            await lab.do("systemctl", "kill", "--signal", "KILL", "ajhost")

            async def back(old: int = supervisor) -> bool:
                return await host.pid() not in (0, old)

            await lab.until(back, "restarted")
            await lab.until_shows("ActiveState", "active")
        await load.sent(200)
    report = load.report()
    print(report)
    assert not report.silent, report
    assert report.no_responders <= 6, report
    assert set(report.words) <= {"worker died:"}, report
    assert report.verdicts[Verdict.ERROR] <= 3 * 32, report
    workers = len(await host.workers())
    assert int(await lab.show("NFileDescriptorStore")) <= workers + 1, "sockets leave the store with their workers"


@pytest.mark.parametrize("how", ["restart", "upgrade"])
async def test_no_request_is_lost(
    lab: Lab,
    host: InstalledHost,
    nats_server: NatsServer,
    package: Path,
    tmp_path: Path,
    router: Router,
    how: str,
) -> None:
    host.configure(nats_server.url, HANDLERS, ROOMY)
    await host.start()
    supervisor = await host.pid()
    newer = repack(package, tmp_path) if how == "upgrade" else package
    async with router.load("work", {"sleep_ms": 10}, rate=200, deadline=20) as load:
        await load.sent(250)
        if how == "restart":
            await lab.do("systemctl", "restart", "ajhost")
        else:
            await asyncio.to_thread(lab.install, newer)
        await lab.until_shows("ActiveState", "active")
        await load.sent(250)
    report = load.report()
    print(report)
    assert set(report.verdicts) == {Verdict.COMPLETE}, report
    assert await host.pid() != supervisor


async def test_a_watchdog_restart_under_load_silences_nothing(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await drop_in(lab, "watchdog", f"[Service]\nWatchdogSec={WATCHDOG}\n")
    host.configure(nats_server.url, HANDLERS, ROOMY)
    await host.start()
    supervisor = await host.pid()
    async with router.load("work", {"sleep_ms": 10}, rate=200, deadline=20) as load:
        await load.sent(250)
        await host.kill("STOP", [supervisor])

        async def back() -> bool:
            return await host.pid() not in (0, supervisor)

        await lab.until(back, "restarted by the watchdog")
        await lab.until_shows("ActiveState", "active")
        await load.sent(250)
    report = load.report()
    print(report)
    assert set(report.verdicts) <= {Verdict.COMPLETE, Verdict.ERROR}, report
    assert set(report.words) <= {"worker died:"}, report
    assert report.verdicts[Verdict.ERROR] <= 32, "what was running when systemd killed the workers"


def repack(package: Path, directory: Path) -> Path:
    """The same package with a higher version."""
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    text = control.read_text()
    version = next(line.split()[1] for line in text.splitlines() if line.startswith("Version:"))
    control.write_text(text.replace(f"Version: {version}", f"Version: {version}+1"))
    newer = directory / "newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, newer], check=True, capture_output=True
    )
    return newer


async def test_a_runtime_directory_that_was_removed_is_told_and_comes_back_with_a_restart(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    await lab.do("rm", "-rf", host.runtime)
    record = await lab.until_logged("cannot be made again", "-u", "ajhost")
    assert "do not reach this host until it is restarted" in record["MESSAGE"]
    assert (await router.request("echo", b"serves on")).body == b"serves on"
    await lab.do("systemctl", "restart", "ajhost")
    assert (await router.request("echo", b"again")).body == b"again"
    assert len(await host.workers()) == 2


async def test_two_hosts_live_side_by_side(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> None:
    hosts = [InstalledHost(lab, f"ajhost@{name}.service", name) for name in ("a", "b")]
    try:
        for name, one in zip(("a", "b"), hosts, strict=True):
            one.configure(nats_server.url, {name: "echo"})
            await one.start()
        async with Router(nats_server.url) as router:
            assert (await router.request("a", b"to a")).body == b"to a"
            assert (await router.request("b", b"to b")).body == b"to b"
            await hosts[0].stop()
            assert (await router.request("b", b"still")).body == b"still"
            assert (await router.request("a", b"gone")).verdict is Verdict.NO_RESPONDERS
        assert not lab.path("/run/ajhost-a").exists()
        assert lab.path("/run/ajhost-b").exists()
    finally:
        await lab.run("systemctl", "stop", "ajhost@a", "ajhost@b")
        for one in hosts:
            lab.path(one.file).unlink(missing_ok=True)


@pytest.mark.parametrize("first", ["the host", "its server"])
async def test_it_comes_up_at_boot_before_or_after_its_server_and_outlives_it(
    lab: Lab, host: InstalledHost, first: str
) -> None:
    port = free_port()
    # ajhost.service starts after a unit of the usual name, if there is one; a server of another name waits for the host
    server, before = "nats-server.service", "/bin/true"
    if first == "the host":
        told = "journalctl -b -u ajhost | grep -q waiting.for.NATS"
        server, before = "server.service", f"/bin/sh -c 'until {told}; do sleep 0.1; done'"
    lab.write(
        f"/etc/systemd/system/{server}",
        f"[Service]\nExecStartPre={before}\n"
        f"ExecStart={nats_server_binary()} --addr 127.0.0.1 --port {port}\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    host.configure(f"nats://127.0.0.1:{port}", HANDLERS)
    await lab.do("systemctl", "enable", "ajhost", server)
    try:
        await lab.reboot()
        await lab.until_shows("ActiveState", "active")
        waited = [
            r
            for r in await lab.journal("-u", "ajhost", "-b")
            if f"waiting for NATS at 127.0.0.1:{port}" in r["MESSAGE"]
        ]
        assert bool(waited) is (first == "the host")
        supervisor = await host.pid()
        async with Router(f"nats://127.0.0.1:{port}") as router:
            assert (await router.request("echo", b"up")).body == b"up"
            await lab.do("systemctl", "restart", server)
            await router.barrier()

            async def served() -> bool:
                return (await router.request("echo", b"up")).verdict is Verdict.COMPLETE

            await lab.until(served, "it serves the server's next start")
        assert await host.pid() == supervisor
        assert await restarts(lab) == 0
    finally:
        await lab.do("systemctl", "disable", "ajhost", server)
        await lab.do("systemctl", "stop", server)
        lab.path(f"/etc/systemd/system/{server}").unlink()


async def test_handlers_may_have_an_interpreter_and_libraries_of_their_own(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await lab.do("/usr/bin/python3", "-m", "venv", "--without-pip", f"{APPLICATION}/releases/1/venv")
    for release in ("1", "2"):
        lab.write(
            f"{APPLICATION}/releases/{release}/acme.py",
            "import only_in_the_venv, sys\n"
            f"async def release(task): return ['{release}', only_in_the_venv.VERSION, sys.prefix]\n",
        )
    await lab.do("cp", "-a", f"{APPLICATION}/releases/1/venv", f"{APPLICATION}/releases/2/venv")
    for release in ("1", "2"):
        site = next(lab.path(f"{APPLICATION}/releases/{release}/venv/lib").glob("python*/site-packages"))
        (site / "only_in_the_venv.py").write_text(f"VERSION = {release}\n")
    await lab.do("ln", "-sfn", "releases/1", f"{APPLICATION}/current")
    current = f"{APPLICATION}/current"
    host.configure(
        nats_server.url,
        {"release": "acme:release"},
        {"python": {"path": [current], "interpreter": f"{current}/venv/bin/python"}},
    )
    await host.start()
    assert (await router.request("release")).json()[:2] == ["1", 1]
    for release in ("2", "1"):
        await lab.do("ln", "-sfn", f"releases/{release}", f"{APPLICATION}/next")
        await lab.do("mv", "-T", f"{APPLICATION}/next", current)
        await lab.do("systemctl", "reload", "ajhost")
        assert (await router.request("release")).json()[:2] == [release, int(release)]


async def _running(host: InstalledHost, wanted: int) -> None:
    """Until that many tasks run."""

    async def run() -> bool:
        status = await host.status()
        return sum(len(worker["tasks"]) for worker in status["workers"]) >= wanted

    await host.lab.until(run, f"{wanted} tasks run")
