"""Overload is not hanging: under a CPU quota, or with many workers on one CPU, nobody is taken over for being late.

And it hides no hang for long.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.control_group import in_group
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.router import Report, Router, Verdict

HANDLERS = {"echo": "echo", "work": "work", "block": "block_loop"}
_SECONDS = 8
_CPU_MS = 8


def limit_cpu(group: Path, cpus: float) -> None:
    """Another quota for a control group of whichever version."""
    legacy, quota = group / "cpu.cfs_quota_us", int(cpus * 100_000)
    if legacy.exists():
        legacy.write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} 100000")


def hangs(host: Host) -> int:
    """How often a worker was said to hang."""
    return len(host.output.having(" hangs: ")) + len(host.output.having(" hangs again: "))


async def test_under_a_quota_of_half_a_cpu_nobody_is_taken_over_and_every_request_is_answered(
    half_a_cpu: Path, start_host: StartHost, router: Router
) -> None:
    host = await start_host(
        handlers=HANDLERS, sections={"workers": {"count": 16, "backlog": 64}}, launcher=in_group(half_a_cpu)
    )
    rate = 800 / _CPU_MS
    async with router.load("work", {"cpu_ms": _CPU_MS}, rate=rate, deadline=5) as load:
        await load.sent(int(rate * _SECONDS))
    report = load.report()
    assert not report.silent, report
    assert not report.no_responders, report
    assert hangs(host) < 3, host.log_text()
    # nor does an answer say so of a worker that had no CPU to give it
    texts = [reply.text for request in report.requests for reply in request.replies]
    assert not [text for text in texts if "hangs" in text]


@pytest.mark.long  # it takes all of a CPU from the tests beside it; the quota above is the same cause
async def test_many_workers_on_one_cpu_are_not_said_to_hang(start_host: StartHost, router: Router) -> None:
    host = await start_host(
        handlers=HANDLERS,
        sections={"workers": {"count": 16, "backlog": 64}},
        launcher=("taskset", "-c", str(min(os.sched_getaffinity(0)))),
    )
    rate = 1100 / _CPU_MS
    async with router.load("work", {"cpu_ms": _CPU_MS}, rate=rate, deadline=5) as load:
        await load.sent(int(rate * _SECONDS))
    report = load.report()
    assert not report.silent, report
    assert not report.no_responders, report
    assert hangs(host) < 6, host.log_text()


async def test_a_handler_that_holds_its_loop_is_found_in_time_however_little_cpu_it_gets(
    half_a_cpu: Path, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, launcher=in_group(half_a_cpu))
    assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE
    limit_cpu(half_a_cpu, 0.08)
    spinning = await router.send("work", {"cpu_ms": 60_000}, deadline=11)
    await host.running(1)
    unread = [await router.send("echo", b"x", deadline=10) for _ in range(10)]
    await router.settled(unread)
    assert Report(tuple(unread)).verdicts == {Verdict.COMPLETE: 10}, host.log_text()
    assert hangs(host) == 1
    limit_cpu(half_a_cpu, 0.5)
    assert (await router.reply(spinning)).word == "deadline exceeded:"


async def test_a_real_hang_is_found_while_it_lasts_on_a_quiet_machine(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS)
    assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE
    hanging = await router.send("block", {"block_ms": 3000}, deadline=20)
    await host.log("hangs")
    await router.barrier()
    assert not hanging.replies, "told while it hangs"
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
