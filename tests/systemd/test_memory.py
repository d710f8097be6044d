"""A worker that the kernel kills for memory: systemd keeps the unit, the supervisor replaces the worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict
from tests.systemd.conftest import drop_in
from tests.systemd.lab import InstalledHost, Lab

LIMIT = 400 << 20


async def memory_group(lab: Lab, unit: str) -> Path:
    """The control group of the unit that bounds its memory. Skips where nothing does."""
    group = (await lab.show("ControlGroup", unit)).lstrip("/")
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
        directory = lab.path(f"{top}/{group}")
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (directory / name).exists() and (directory / name).read_text().strip() == str(LIMIT):
                return directory
    pytest.skip("no control group of this machine bounds the memory of a unit, so its kernel kills nobody")


def kills(group: Path) -> int:
    """How many processes of a control group the kernel has killed for memory."""
    for name in ("memory.events", "memory.oom_control"):
        if (group / name).exists():
            words = (group / name).read_text().split()
            return int(words[words.index("oom_kill") + 1])
    raise AssertionError(f"{group} does not count")


async def test_a_worker_that_is_killed_for_memory_is_replaced_and_its_tasks_are_answered(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    await drop_in(lab, "memory", f"[Service]\nMemoryMax={LIMIT}\nMemorySwapMax=0\n")
    host.configure(nats_server.url, {"echo": "echo", "work": "work", "allocate": "allocate"})
    await host.start()
    group = await memory_group(lab, host.unit)
    supervisor, workers = await host.pid(), set((await host.workers()).values())
    running = [await router.send("work", {"sleep_ms": 1500}, deadline=20) for _ in range(8)]
    reply = await router.request("allocate", {"bytes": 2 * LIMIT, "sleep_ms": 60_000}, deadline=20)
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "worker died:")
    killed = f"the kernel has killed 1 of this control group's processes for memory; its limit is {LIMIT >> 20} MiB"
    assert reply.text.startswith(f"worker died: SIGKILL; {killed}")
    others = [await router.reply(request) for request in running]
    assert {reply.word for reply in others if reply.verdict is Verdict.ERROR} <= {"worker died:"}
    assert {reply.verdict for reply in others} <= {Verdict.COMPLETE, Verdict.ERROR}

    async def replaced() -> bool:
        serving = set((await host.workers()).values())
        return len(serving) == len(workers) and serving != workers

    await lab.until(replaced, "the killed worker is replaced")
    assert (await router.request("echo", b"on")).body == b"on"
    assert kills(group) == 1, "by the kernel, and the greedy one alone"
    assert (await host.pid(), await lab.show("NRestarts")) == (supervisor, "0")
    assert await lab.show("ActiveState") == "active"
