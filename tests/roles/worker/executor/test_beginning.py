"""A handler begins when its code does: asked for at that moment, by whoever executes it, and not at all if refused."""

from __future__ import annotations

import threading

import pytest

from ajhost.api import Task
from ajhost.protocol.outcome import Completed
from tests.roles.worker.executor.harness import SOON, ExecutorHarness, forever, said_about_deadline


async def test_each_begins_immediately_before_its_own_first_instruction(host: ExecutorHarness) -> None:
    async def handler(task: Task) -> None:
        host.begun.append(("first instruction", int(task.id[1:]), threading.get_ident()))

    here = threading.get_ident()
    indexes = [host.start(handler) for _ in range(3)]
    assert host.begun == []
    for index in indexes:
        assert await host.outcome(index) == Completed(b"")
    assert host.begun == [(what, index, here) for index in indexes for what in ("begin", "first instruction")]


async def test_a_plain_function_begins_in_its_thread(host: ExecutorHarness) -> None:
    def handler(task: Task) -> None:
        host.begun.append(("first instruction", int(task.id[1:]), threading.get_ident()))

    index = host.start(handler)
    assert await host.outcome(index) == Completed(b"")
    (begin, first) = host.begun
    assert (begin[0], first[0]) == ("begin", "first instruction")
    assert begin[2] == first[2] != threading.get_ident()


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_what_is_somebody_elses_by_then_is_neither_run_nor_finished(host: ExecutorHarness, kind: str) -> None:
    ran = []

    async def handler(task: Task) -> None:
        ran.append(task.id)

    index = host.start(handler if kind == "loop" else lambda task: ran.append(task.id))
    host.others.add(index)
    await host.freed(index)
    after = host.start(handler)
    assert await host.outcome(after) == Completed(b"")
    assert ran == ["T1"]
    assert host.of(index) == ["freed"]


async def test_what_is_answered_before_it_began_never_begins(host: ExecutorHarness) -> None:
    index = host.start(forever, seconds=0)
    said_about_deadline(await host.outcome(index))
    await host.freed(index)
    assert host.begun == []


async def test_a_thread_that_comes_too_late_does_not_begin(host: ExecutorHarness, gate: threading.Event) -> None:
    def hold(task: Task) -> None:
        gate.wait()

    holding = [host.start(hold) for _ in range(3)]
    late = host.start(hold, seconds=SOON)
    said_about_deadline(await host.outcome(late))
    gate.set()
    await host.freed(late)
    assert [index for _, index, _ in host.begun] == holding
