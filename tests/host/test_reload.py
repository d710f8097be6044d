"""Reload and recycling: proven first, then slot by slot, never a gap; anything wrong, and the old one serves on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.factories import NewHost, StartHost
from tests.support.host import Host
from tests.support.router import Router, Verdict

VERSION = """
async def version(task):
    return {version!r}
"""


async def test_new_code_and_settings_come_into_service_without_a_gap(start_host: StartHost, router: Router) -> None:
    handlers = {"version": "app:version", "work": "work"}
    host = await start_host(handlers=handlers, modules={"app": VERSION.format(version="one")})
    assert (await router.request("version")).body == b"one"
    module = host.application / "app.py"
    written = module.stat().st_mtime_ns
    async with router.load("work", {"sleep_ms": 5}, rate=300, deadline=10) as load:
        await load.sent(50)
        host.write_module("app", VERSION.format(version="two"))
        os.utime(module, ns=(written, written))  # a deploy within the second of the last, of the same size
        host.configure({**handlers, "more": "echo"}, {"workers": {"count": 3}})
        result = await host.reload()
        assert (result.status, result.stdout) == (0, "generation 2 serves; new: 'more'\n"), result
        await load.sent(50)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    assert (await router.request("version")).body == b"two"
    assert (await router.request("more", b"hello")).body == b"hello"
    assert len(host.workers()) == 3
    host.configure(handlers, {"workers": {"count": 1}})
    old = host.workers()
    assert (await host.reload()).stdout == "generation 3 serves; no longer served: 'more'\n"
    for pid in old.values():
        await processes.gone(pid)
    assert len(host.workers()) == 1
    assert (await router.request("more", b"hello")).verdict is Verdict.NO_RESPONDERS


async def test_a_deploy_by_symlink_comes_into_service_and_back(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "shop.py").write_text(
            f"import lazy_part\n\nasync def version(task):\n    return {release!r}\n"
        )
        (tmp_path / release / "lazy_part.py").write_text("")
    current = tmp_path / "current"
    current.symlink_to("one")
    host = await start_host(handlers={"version": "shop:version"}, sections={"python": {"path": [current]}})
    for release in ("one", "two", "one"):
        new = tmp_path / "new"
        new.symlink_to(release)
        new.replace(current)
        assert (await host.reload()).status == 0
        assert (await router.request("version")).body == release.encode()


BROKEN = {
    "def broken(:": "SyntaxError",
    "raise RuntimeError('no database')": "no database",
    "import sys; sys.exit(3)": "SystemExit",
    "import os; os._exit(3)": "exit",
    "import time; time.sleep(3600)": "did not end in time",
    "other = 1": "version",
}


async def test_modules_that_do_not_load_are_rejected_and_the_old_one_serves_on(
    start_host: StartHost, router: Router
) -> None:
    handlers = {"version": "app:version"}
    host = await start_host(handlers=handlers, modules={"app": VERSION.format(version="one")})
    before = host.workers()
    for source, reason in BROKEN.items():
        host.write_module("app", source)
        # a slow machine takes seconds to import what is good
        host.configure(handlers, {"python": {"import_timeout": 2.0 if "sleep" in source else 60.0}})
        result = await host.reload()
        assert result.status == 1, source
        assert reason in result.stderr
        assert host.workers() == before
        assert (await router.request("version")).body == b"one"


async def test_bad_settings_are_rejected_with_the_reason(host: Host, router: Router) -> None:
    drop_in = host.file.parent / "conf.d" / "50-bad.toml"
    drop_in.parent.mkdir()
    for settings, reason in (
        ("[nats\n", "toml"),
        ('[python]\ninterpreter = "/no/such/python"\n', "interpreter"),
        ("[workers]\ncuont = 3\n", "count"),
    ):
        drop_in.write_text(settings)
        result = await host.reload()
        assert result.status == 1
        assert reason in result.stderr.lower()
        assert "50-bad.toml" in result.stderr
        assert (await router.request("echo", b"x")).body == b"x"
    drop_in.unlink()
    assert (await host.reload()).status == 0


async def test_a_template_that_dies_beside_broken_code_comes_back_when_the_code_is_mended(
    start_host: StartHost, router: Router
) -> None:
    good = VERSION.format(version="one")
    host = await start_host(handlers={"version": "app:version"}, modules={"app": good})
    host.write_module("app", "def broken(:")
    os.kill(host.template(), signal.SIGKILL)
    await host.log("no new template")
    assert (await router.request("version")).body == b"one"  # workers live on
    rejected = await host.reload()
    assert rejected.status == 1
    assert "SyntaxError" in rejected.stderr
    host.write_module("app", VERSION.format(version="two"))
    assert (await host.reload()).status == 0
    assert (await router.request("version")).body == b"two"
    host.kill(0)
    await host.log("died: SIGKILL")
    assert (await router.request("version")).body == b"two"


async def test_another_queue_group_needs_a_restart(host: Host) -> None:
    host.configure({"echo": "echo"}, {"nats": {"queue_group": "another"}})
    result = await host.reload()
    assert result.status == 1
    assert "queue_group" in result.stderr


async def test_sighup_reloads_and_says_so_to_the_service_manager(host: Host) -> None:
    host.send_signal(signal.SIGHUP)
    await host.notifications.next("RELOADING", "1")
    await host.log("reloaded: generation 2 serves")


async def test_a_reload_of_a_host_that_still_waits_for_its_server_is_rejected_and_starts_nothing(
    new_host: NewHost,
) -> None:
    host = new_host(nats="nats://127.0.0.1:9")
    await host.launch()
    await host.log("waiting for NATS")
    host.send_signal(signal.SIGHUP)
    why = "the host is starting; NATS: 127.0.0.1:9: connection refused"
    await host.log(f"nothing is reloaded: {why}")
    result = await host.reload()
    hint = " (restart it if what it began with has changed since)"
    assert (result.status, result.stderr) == (1, f"nothing is reloaded: {why}{hint}\n")
    for command in ("drain", "resume", "recycle"):
        refused = await host.command(command)
        assert (refused.status, refused.stderr) == (1, f"{why}\n")
    assert ", starting, waiting for " in (await host.command("status")).stdout
    assert not host.workers()
    assert not host.notifications.having("READY")
    assert await host.terminate() == 0
    await host.nothing_left()


async def test_a_stop_waits_for_no_import_of_a_reload_and_commands_say_that_the_host_stops(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(
        handlers={"version": "app:version", "work": "work"},
        modules={"app": VERSION.format(version="one")},
        sections={"python": {"import_timeout": 3000.0}, "workers": {"count": 1, "drain_timeout": 30.0}},
    )
    held = await router.send("work", {"sleep_ms": 60_000}, deadline=60)
    await host.running(1)
    host.write_module("app", "import time\ntime.sleep(3000)")
    reload = asyncio.create_task(host.reload())
    while "imports the handlers" not in (await host.command("stacks")).stdout:
        pass  # each look is a process
    host.send_signal(signal.SIGHUP)
    host.send_signal(signal.SIGTERM)
    rejected = await reload
    assert rejected.stderr == "rejected, the old generation leaves:\nthe host is stopping\n"
    assert ", stopping, " in (await host.command("status")).stdout
    for command in ("recycle", "drain", "resume"):
        refused = await host.command(command)
        assert (refused.status, refused.stderr) == (1, "the host is stopping\n")
    assert (await host.reload()).stderr == "nothing is reloaded: the host is stopping\n"
    assert (await host.command("cancel", held.id)).stdout == "cancelled, it was running\n"
    assert await host.wait() == 0


@pytest.mark.parametrize("reloads", [3, pytest.param(10, marks=pytest.mark.long)])
async def test_reloads_at_speed_lose_nothing(start_host: StartHost, router: Router, reloads: int) -> None:
    host = await start_host(handlers={"work": "work"})
    async with router.load("work", {"sleep_ms": 3}, rate=200, deadline=10) as load:
        for _ in range(reloads):
            assert (await host.reload()).status == 0
            await load.sent(20)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report


async def test_recycling_by_tasks_replaces_first(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers={"work": "work"}, sections={"workers": {"count": 2, "max_tasks": 100}})
    first = set(host.workers().values())
    async with router.load("work", {"sleep_ms": 3}, rate=300, deadline=10) as load:
        for pid in first:
            await processes.gone(pid)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report


async def test_a_worker_that_grows_is_recycled_while_its_task_runs(start_host: StartHost, router: Router) -> None:
    host = await start_host(
        handlers={"allocate": "allocate", "leak": "leak", "echo": "echo"},
        sections={"workers": {"count": 1, "max_memory": "150M"}},
    )
    old = host.workers()[0]
    request = await router.send("allocate", {"bytes": 200 << 20, "sleep_ms": 4000}, deadline=20)
    await host.log("is replaced")
    assert (await router.request("echo", b"x")).body == b"x"
    assert (await router.reply(request)).verdict is Verdict.COMPLETE
    await processes.gone(old)


async def test_a_poison_task_ends_terminated_when_it_was_asked_for(start_host: StartHost, router: Router) -> None:
    await start_host(handlers={"poison": {"target": "kill_self", "max_crashes": 2}, "echo": "echo"})
    first = await router.request("poison", {}, id="2poison")
    assert (first.verdict, first.word) == (Verdict.ERROR, "worker died:")
    second = await router.request("poison", {}, id="2poison2")
    assert second.verdict is Verdict.ERROR
    again = await router.request("poison", {}, id="2poison")
    assert again.verdict is Verdict.TERMINATE


async def test_a_crash_loop_of_one_route_leaves_the_others_unharmed(start_host: StartHost, router: Router) -> None:
    await start_host(handlers={"kill": "kill_self", "work": "work"}, sections={"workers": {"count": 3}})
    async with (
        router.load("work", {"sleep_ms": 1}, rate=100, deadline=20) as good,
        router.load("kill", {}, rate=2, count=12, deadline=20) as bad,
    ):
        await bad.sent(11)
    assert not good.report().silent, good.report()
    assert not good.report().no_responders, good.report()
    assert set(good.report().words) <= {"worker died:"}
    assert bad.report().words == {"worker died:": 12}, bad.report()


async def test_a_memory_limit_below_what_imports_take_is_told_and_replaces_nobody(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers={"echo": "echo"}, sections={"workers": {"count": 2, "max_memory": "10M"}})
    before = host.workers()
    await host.log("workers.max_memory: 10 MiB is less than")
    async with router.load("echo", {}, rate=50) as load:
        await load.sent(150)  # three seconds: each of them was one of a replacement
    assert host.workers() == before
    assert len(host.output.having("workers.max_memory")) == 1
