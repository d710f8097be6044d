"""A worker that the kernel kills for memory: who looks is told so, and of which limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.control_group import control_group, in_group
from tests.support.factories import StartHost
from tests.support.router import Router

LIMIT = 300 << 20


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A real control group, of whichever version is here, with a limit."""
    limits = {"memory.limit_in_bytes": str(LIMIT)}, {"memory.max": str(LIMIT)}
    with control_group("memory", *limits) as group:
        yield group


async def test_a_worker_that_is_killed_for_memory_is_told_from_others(
    little_memory: Path, start_host: StartHost, router: Router
) -> None:
    host = await start_host(
        handlers={"allocate": "allocate", "work": "work"},
        sections={"workers": {"count": 1}},
        launcher=in_group(little_memory),
    )
    reply = await router.request("allocate", {"bytes": 2 * LIMIT}, deadline=20)
    of_memory = "the kernel has killed 1 of this control group's processes for memory; its limit is 300 MiB"
    assert reply.text.startswith(f"worker died: SIGKILL; {of_memory}")
    await host.log(of_memory)
    sleeping = await router.send("work", {"sleep_ms": 60_000}, deadline=20)
    await host.running(1)
    host.kill(0)
    assert "memory" not in (await router.reply(sleeping)).text
