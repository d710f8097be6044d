"""A ledger file that is truncated, removed or replaced from outside while its owner lives."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.host.test_stray_writes import HANDLERS, ledger_of
from tests.support.factories import StartHost
from tests.support.host import Host, Section
from tests.support.router import Router, Verdict


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_in_its_entries(path: Path) -> None:
    os.truncate(path, 12_288)


def removed(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def another_file(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"no ledger")


CHANGES = [emptied, halved, cut_in_its_entries, removed, a_directory, a_link, a_pipe, another_file]


ALL_OF_A_KIND = [emptied, another_file]
SUPERVISORS = [pytest.param(c, marks=[] if c in ALL_OF_A_KIND else pytest.mark.long) for c in CHANGES]


async def kill_and_serve(host: Host, router: Router) -> None:
    """Every worker is killed once more, replaced, and all that comes later is served."""
    present = host.workers()
    for slot in present:
        host.kill(slot)
    for slot in present:
        await host.refilled(slot, present[slot])
    async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=5) as load:
        await load.sent(50)
    report = load.report()
    assert report.verdicts == {Verdict.COMPLETE: len(report.requests)}, report
    assert (await host.command("status")).status == 0
    assert not host.output.having("Traceback"), host.log_text()


async def test_a_worker_whose_ledgers_file_is_changed_is_replaced_and_supervision_goes_on(
    start_host: StartHost, router: Router
) -> None:
    sections: dict[str, Section] = {"workers": {"count": len(CHANGES)}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    supervisor, before = host.pid, host.workers()
    ledgers = [ledger_of(host, pid) for pid in before.values()]
    for path, change in zip(ledgers, CHANGES, strict=True):
        change(path)
    async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=5) as load:
        await load.sent(100)
    for slot, pid in before.items():
        await host.refilled(slot, pid)
    await kill_and_serve(host, router)
    assert host.pid == supervisor
    assert host.output.having("somebody has truncated the ledger of worker"), host.log_text()


@pytest.mark.long
async def test_a_ledger_that_is_truncated_at_any_moment_costs_its_worker_and_no_more(
    start_host: StartHost,
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 8}})
    supervisor = host.pid
    for _ in range(12):
        before = host.workers()
        for path in [ledger_of(host, pid) for pid in before.values()]:
            emptied(path)
            await asyncio.sleep(0.07)  # whatever looks at ledgers now and then has its turn in between
        for slot, pid in before.items():
            await host.refilled(slot, pid)
    assert host.pid == supervisor


@pytest.mark.parametrize("change", SUPERVISORS, ids=lambda change: change.__name__)
async def test_a_change_of_the_supervisors_ledgers_file_does_not_end_it(
    start_host: StartHost, router: Router, change: Callable[[Path], None]
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 2}})
    supervisor = host.pid
    change(ledger_of(host, supervisor))
    async with router.load("work", {"sleep_ms": 2}, rate=100, deadline=5) as load:
        await load.sent(100)
    await kill_and_serve(host, router)
    assert host.pid == supervisor


async def test_the_next_start_serves_whatever_became_of_the_ledgers_files(
    start_host: StartHost, router: Router
) -> None:
    sections: dict[str, Section] = {"workers": {"count": len(CHANGES)}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    for _ in CHANGES:
        await router.send("work", {"sleep_ms": 60_000}, deadline=3)
    await host.running(len(CHANGES))
    ledgers = [ledger_of(host, pid) for pid in host.workers().values()]
    own = ledger_of(host, host.pid)
    host.signal_all(signal.SIGSTOP)
    for path, change in zip([*ledgers, own], [*CHANGES, halved], strict=True):
        change(path)
    host.signal_all()
    await host.wait()
    await host.restart()
    assert (await router.request("echo", b"alive")).body == b"alive"


async def test_what_is_put_in_the_place_of_the_hosts_files_is_moved_aside(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 1}})

    def replace() -> None:
        for name in ("state.json", "control", "view", "lock"):
            a_directory(host.runtime / name)
        shutil.rmtree(host.runtime / "ledger")
        (host.runtime / "ledger").write_bytes(b"")

    before = host.workers()
    replace()
    await host.refilled(0, before[0])
    assert (await host.command("status")).status == 0
    assert (await host.command("reload")).status == 0
    assert (await router.request("echo", b"alive")).body == b"alive"
    host.signal_all(signal.SIGSTOP)
    replace()
    host.signal_all()
    await host.wait()
    await host.restart()
    assert (await router.request("echo", b"alive")).body == b"alive"
