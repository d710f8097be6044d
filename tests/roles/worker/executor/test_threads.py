"""Plain functions: real threads, stuck ones, and none to be had."""

from __future__ import annotations

import gc
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import NoReturn

import pytest

from ajhost.api import Task
from ajhost.protocol.outcome import Completed, Failed
from ajhost.roles.middleware import Call
from ajhost.roles.worker.request import StuckReason
from ajhost.roles.worker.thread_pool import prepare_for_threads
from tests.roles.worker.executor.harness import (
    LIMIT,
    SOON,
    ExecutorHarness,
    forever,
    said_about_deadline,
)
from tests.support import handlers


async def test_a_thread_at_its_deadline_is_answered_for_and_stuck_at_once(
    host: ExecutorHarness, gate: threading.Event
) -> None:
    def handler(task: Task) -> str:
        gate.wait()
        return "too late"

    index = host.start(handler, seconds=SOON)
    said_about_deadline(await host.outcome(index))
    assert host.event("stuck", index).said is StuckReason.THREAD  # in the same turn of the loop
    gate.set()
    await host.freed(index)
    assert host.of(index) == ["finish", "stuck", "freed"]


async def test_a_thread_that_tells_of_its_exception_past_its_deadline_is_answered_for_and_stuck(
    host: ExecutorHarness, gate: threading.Event
) -> None:
    class Hook(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            gate.wait()

    log, hook = logging.getLogger("ajhost.attempts"), Hook(logging.ERROR)
    log.addHandler(hook)
    try:
        index = host.start(handlers.strange_sync, seconds=1.0, payload=b'{"exception":"BaseException"}')
        assert await host.outcome(index) == Failed("handler error: _Base: a BaseException")
        await host.until(lambda: host.of(index) == ["finish", "stuck"])
        assert host.event("stuck", index).said is StuckReason.THREAD
        gate.set()
        await host.freed(index)
    finally:
        log.removeHandler(hook)


async def test_a_thread_that_ended_in_time_is_not_late_because_the_loop_was(host: ExecutorHarness) -> None:
    index = host.start(handlers.echo_sync, seconds=SOON, payload=b"in time")
    time.sleep(3 * SOON)
    assert await host.outcome(index) == Completed(b"in time")
    assert host.of(index) == ["finish", "freed"]


@pytest.mark.parametrize("module", [sys, threading])
async def test_threads_are_started_without_the_hooks_that_an_application_has_taken_away(
    host: ExecutorHarness, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "excepthook", None)
    index = host.start(handlers.echo_sync, payload=b"in a thread")
    assert await host.outcome(index) == Completed(b"in a thread")


class Crowd:
    """A handler that sees how many threads run it at once."""

    def __init__(self) -> None:
        self.most = 0
        self.threads: set[int] = set()
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, task: Task) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            self.threads.add(threading.get_ident())
        time.sleep(0.005)
        with self._lock:
            self._now -= 1


async def crowd(host: ExecutorHarness) -> Crowd:
    """What was seen of many tasks at once."""
    seen = Crowd()
    for index in [host.start(seen) for _ in range(15)]:
        assert await host.outcome(index) == Completed(b"")
    return seen


async def three_at_once(host: ExecutorHarness) -> None:
    """Tasks that end when three of them run."""
    meeting = threading.Barrier(3)

    def meet(task: Task) -> None:
        meeting.wait(LIMIT)

    for index in [host.start(meet) for _ in range(3)]:
        assert await host.outcome(index) == Completed(b"")


async def test_threads_are_reused_and_never_more_than_the_limit(host: ExecutorHarness) -> None:
    await three_at_once(host)
    seen = await crowd(host)
    assert seen.most <= 3
    assert len(seen.threads) <= 3


async def test_stuck_threads_are_replaced_for_what_waits_and_what_comes(
    host: ExecutorHarness, gate: threading.Event
) -> None:
    def wait(task: Task) -> None:
        gate.wait()

    stuck = [host.start(wait, seconds=SOON) for _ in range(3)]
    waiting = [host.start(handlers.echo_sync, payload=b"waited") for _ in range(3)]
    for index in waiting:
        assert await host.outcome(index) == Completed(b"waited")
    await host.until(lambda: [host.of(index) for index in stuck] == [["finish", "stuck"]] * 3)
    await three_at_once(host)
    gate.set()
    for index in stuck:
        await host.freed(index)
    # those that came back are no addition
    assert (await crowd(host)).most <= 3


async def test_what_waits_for_a_thread_at_its_deadline_is_answered_and_never_run(
    host: ExecutorHarness, gate: threading.Event
) -> None:
    ran = []

    def wait(task: Task) -> None:
        gate.wait()

    def note(task: Task) -> None:
        ran.append(task.id)

    holding = [host.start(wait) for _ in range(3)]
    index = host.start(note, seconds=SOON)
    assert "had not begun after 0.05 s" in said_about_deadline(await host.outcome(index))
    gate.set()
    await host.freed(index)
    for held in holding:
        await host.freed(held)
    assert host.of(index) == ["finish", "freed"]
    assert ran == []


async def test_a_coroutine_that_a_thread_returned_is_cancelled_at_its_deadline_and_costs_no_thread(
    host: ExecutorHarness,
) -> None:
    def disguised(task: Task) -> Awaitable[NoReturn]:
        return forever(task)

    def swallows(task: Task) -> Awaitable[str]:
        return handlers.swallow_cancellation(task)

    index = host.start(disguised, seconds=SOON)
    await host.freed(index)
    assert host.of(index) == ["finish", "freed"]
    for _ in range(2):
        index = host.start(swallows, seconds=SOON, payload=b'{"sleep_ms":700}')
        await host.freed(index)
        assert host.event("stuck", index).said is StuckReason.CANCELLATION
    await three_at_once(host)
    assert (await crowd(host)).most <= 3


async def test_a_coroutine_that_comes_out_of_a_stuck_thread_is_not_run(
    host: ExecutorHarness, gate: threading.Event
) -> None:
    ran = []

    async def inner() -> None:
        ran.append(True)

    def disguised(task: Task) -> Awaitable[None]:
        gate.wait()
        return inner()

    index = host.start(disguised, seconds=SOON)
    await host.until(lambda: "stuck" in host.of(index))
    gate.set()
    await host.freed(index)
    gc.collect()  # a coroutine that nobody awaited would warn here
    assert ran == []
    await three_at_once(host)
    assert (await crowd(host)).most <= 3


@pytest.fixture
def no_threads() -> Generator[None]:
    """The system refuses every thread: its stack finds no room in the address space."""
    before = threading.stack_size(256 << 20)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20), limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)
    threading.stack_size(before)


async def test_a_task_is_refused_when_no_thread_can_be_had(host: ExecutorHarness, no_threads: None) -> None:
    index = host.start(handlers.echo_sync)
    assert host.of(index) == []
    assert await host.outcome(index) == Failed("overloaded: no thread can be started")
    assert host.of(index) == ["finish", "freed"]
    assert await host.outcome(host.start(handlers.echo, payload=b"on the loop")) == Completed(b"on the loop")


async def test_a_plain_function_behind_middleware_is_refused_like_any_when_no_thread_can_be_had(
    host: ExecutorHarness, no_threads: None
) -> None:
    async def around(task: Task, call: Call) -> object:
        return await call(task)

    index = host.start(handlers.echo_sync, middleware=[around])
    assert await host.outcome(index) == Failed("overloaded: no thread can be started")
    assert host.of(index) == ["finish", "freed"]


async def test_tasks_share_the_threads_that_there_are_when_no_more_can_be_had(
    host: ExecutorHarness, gate: threading.Event, request: pytest.FixtureRequest
) -> None:
    await host.freed(host.start(handlers.echo_sync))
    request.getfixturevalue("no_threads")
    for index in [host.start(handlers.echo_sync, payload=b"shared") for _ in range(5)]:
        assert await host.outcome(index) == Completed(b"shared")


def test_a_stuck_thread_keeps_no_process_alive() -> None:
    program = """
import contextvars, sys, threading
from ajhost.roles.worker.thread_pool import Threads
begun = threading.Event()
threads = Threads(1)
threads.run("stuck", contextvars.copy_context(), lambda: (begun.set(), threading.Event().wait()))
begun.wait()
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=LIMIT,
        env={"PYTHONPATH": str(Path(__file__).parents[4] / "daemon")},
    )


async def test_threads_let_the_loop_have_a_processor_first(host: ExecutorHarness) -> None:
    nice = os.getpriority(os.PRIO_PROCESS, 0)

    def handler(task: Task) -> str:
        return str(os.getpriority(os.PRIO_PROCESS, 0))

    for index in (host.start(handler), host.start(handler)):
        assert await host.outcome(index) == Completed(str(min(nice + 5, 19)).encode())
    assert os.getpriority(os.PRIO_PROCESS, 0) == nice


async def test_with_threads_that_compute_the_loop_has_its_turn_at_once() -> None:
    before = sys.getswitchinterval()
    try:
        prepare_for_threads()
        assert sys.getswitchinterval() == pytest.approx(0.0002)
    finally:
        sys.setswitchinterval(before)
