"""Handlers on the loop at their deadlines, and at the end of a drain."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from ajhost.api import Task
from ajhost.protocol.outcome import Completed, Failed
from ajhost.roles.worker.deadline_enforcement import Deadlines
from ajhost.roles.worker.request import StuckReason
from tests.roles.worker.executor.harness import (
    GRACE,
    LONG,
    SOON,
    ExecutorHarness,
    forever,
    said_about_deadline,
)
from tests.support import handlers


async def test_at_its_deadline_a_handler_is_answered_for_and_then_cancelled(host: ExecutorHarness) -> None:
    answered_before_cancel = []

    async def handler(task: Task) -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            answered_before_cancel.append(host.of(0) == ["finish"])
            raise

    begun = time.monotonic()
    index = host.start(handler, seconds=SOON)
    text = said_about_deadline(await host.outcome(index))
    assert "'email:new' was still running after 0.05 s (the task's deadline)" in text
    assert host.event("finish", index).at - begun >= SOON
    await host.freed(index)
    assert answered_before_cancel == [True]
    assert host.of(index) == ["finish", "freed"]


async def test_the_answer_says_when_the_routes_timeout_was_the_limit(host: ExecutorHarness) -> None:
    text = said_about_deadline(await host.outcome(host.start(forever, seconds=SOON, timeout=SOON)))
    assert "after 0.05 s (the route's timeout)" in text
    text = said_about_deadline(await host.outcome(host.start(forever, seconds=SOON, timeout=LONG)))
    assert "after 0.05 s (the task's deadline)" in text


async def test_a_deadline_is_seen_within_a_twentieth_of_a_second(host: ExecutorHarness) -> None:
    loop = asyncio.get_running_loop()
    by_then: asyncio.Future[list[str]] = loop.create_future()
    index = host.start(forever, seconds=SOON)
    # the loop calls what is due in its order, however late it is itself, and what that leads to a turn later
    loop.call_at(time.monotonic() + SOON + 0.05, loop.call_soon, lambda: by_then.set_result(host.of(index)))
    assert (await by_then)[0] == "finish"


async def test_an_early_deadline_is_seen_whatever_was_due_before_it(host: ExecutorHarness) -> None:
    for seconds in (LONG, LONG / 2, LONG / 3, SOON):
        host.start(forever, seconds=seconds)
    await host.outcome(3)
    await host.outcome(host.start(forever, seconds=SOON))
    assert [event.index for event in host.events if event.what == "finish"] == [3, 4]
    host.executor.cancel_all("over")
    await host.freed(0)


async def test_a_deadline_far_away_is_not_looked_at_again_and_again(
    host: ExecutorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    look = Deadlines._sweep

    def noted(deadlines: Deadlines) -> None:
        looks.append(time.monotonic())
        look(deadlines)

    monkeypatch.setattr(Deadlines, "_sweep", noted)
    for seconds in (LONG, 5 * SOON):
        host.start(forever, seconds=seconds)
    await host.outcome(1)
    await host.freed(1)
    assert 1 <= len(looks) <= 2  # one more when the loop's clock was ahead
    host.executor.cancel_all("over")
    await host.freed(0)


async def test_a_cancellation_reaches_only_the_handler_that_is_late(host: ExecutorHarness) -> None:
    go_on = asyncio.Event()

    async def patient(task: Task) -> str:
        await go_on.wait()
        return "undisturbed"

    others = [host.start(patient) for _ in range(5)]
    late = host.start(forever, seconds=SOON)
    await host.freed(late)
    assert [host.of(other) for other in others] == [[]] * 5
    go_on.set()
    assert [await host.outcome(other) for other in others] == [Completed(b"undisturbed")] * 5


async def test_a_handler_that_tidies_up_within_the_grace_is_not_stuck(host: ExecutorHarness) -> None:
    index = host.start(handlers.clean_up_long, seconds=SOON, payload=b'{"cleanup_ms":50}')
    await host.freed(index)
    assert host.of(index) == ["finish", "freed"]


async def test_a_result_after_the_deadline_is_dropped(host: ExecutorHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ajhost.worker")

    async def handler(task: Task) -> str:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return "too late"
        return "not reached"

    index = host.start(handler, seconds=SOON)
    await host.freed(index)
    said_about_deadline(await host.outcome(index))
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


async def test_a_handler_that_swallows_its_cancellation_is_stuck_after_the_grace_and_freed_when_it_ends(
    host: ExecutorHarness,
) -> None:
    let_go = asyncio.Event()

    async def handler(task: Task) -> str:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    index = host.start(handler, seconds=SOON)
    await host.until(lambda: "stuck" in host.of(index))
    stuck = host.event("stuck", index)
    assert stuck.said is StuckReason.CANCELLATION
    assert stuck.at - host.event("finish", index).at >= GRACE
    assert host.executor.busy == 1
    after = host.start(forever, seconds=3 * SOON)
    await host.freed(after)
    let_go.set()
    await host.freed(index)
    assert host.of(index) == ["finish", "stuck", "freed"]


async def test_a_deadline_before_the_first_step_leaves_the_handler_unrun_and_its_slot_free(
    host: ExecutorHarness,
) -> None:
    ran = []

    async def handler(task: Task) -> None:
        ran.append(task.id)

    index = host.start(handler)
    host.executor.cancel_all("draining: now")
    await host.freed(index)
    assert host.of(index) == ["finish", "freed"]
    assert ran == []


class Stubborn(asyncio.Future[None]):
    """An application's own awaitable, which takes no cancellation."""

    def cancel(self, msg: Any = None) -> bool:
        raise RuntimeError("not me")


@pytest.mark.parametrize("draining", [False, True])
async def test_an_awaitable_whose_cancel_raises_holds_up_nobody_elses_answer(
    host: ExecutorHarness, draining: bool
) -> None:
    stubborn = Stubborn()

    async def handler(task: Task) -> None:
        await stubborn

    begun = [host.start(f, seconds=LONG if draining else SOON) for f in (handler, forever, handler, forever)]
    if draining:
        await asyncio.sleep(0)
        host.executor.cancel_all("draining: now")
    for index in begun:
        assert isinstance(await host.outcome(index), Failed)
    await host.until(lambda: "stuck" in host.of(begun[0]) and "stuck" in host.of(begun[2]))
    stubborn.set_result(None)


async def test_ten_thousand_handlers_that_end_about_their_deadlines_have_one_answer_each(
    host: ExecutorHarness,
) -> None:
    seed = time.time_ns()
    chance = random.Random(seed)

    async def sleep(task: Task) -> bytes:
        await asyncio.sleep(float(task.payload))
        return b"in time"

    async def sleep_on(task: Task) -> bytes:
        try:
            return await sleep(task)
        except asyncio.CancelledError:
            await asyncio.sleep(chance.random() * SOON)
            return b"late"

    def in_thread(task: Task) -> bytes:
        time.sleep(float(task.payload))
        return b"in time"

    for _ in range(100):
        for n in range(100):
            function = in_thread if n == 0 else chance.choice((sleep, sleep_on))
            moment = chance.uniform(0.0, 0.1)
            length = max(0.0, moment + chance.uniform(-0.02, 0.02))
            host.start(function, seconds=moment, payload=str(length).encode())
        await asyncio.sleep(0.005)  # or all would be late together
    await host.until(lambda: not host.executor.busy)
    counts = Counter((event.what, event.index) for event in host.events if event.what != "stuck")
    assert counts == Counter({(what, i): 1 for what in ("finish", "freed") for i in range(10_000)}), seed
    kinds = Counter(type(event.said) for event in host.events if event.what == "finish")
    assert min(kinds[Completed], kinds[Failed]) > 0, seed


async def test_when_the_time_to_drain_is_over_all_is_answered_and_cancelled(
    host: ExecutorHarness, gate: threading.Event
) -> None:
    loop, waits = asyncio.get_running_loop(), asyncio.Event()

    def wait(task: Task) -> None:
        loop.call_soon_threadsafe(waits.set)
        gate.wait()

    begun = [host.start(forever), host.start(forever), host.start(wait)]
    await waits.wait()
    assert host.executor.running() == {"email:new": 3}
    host.executor.cancel_all("draining: the host stopped")
    host.executor.cancel_all("draining: again")
    assert [await host.outcome(index) for index in begun] == [Failed("draining: the host stopped")] * 3
    assert host.executor.running() == {}
    gate.set()
    for index in begun:
        await host.freed(index)
    assert host.of(begun[0]) == ["finish", "freed"]
    assert host.of(begun[2]) == ["finish", "stuck", "freed"]


async def test_what_is_started_after_the_end_of_a_drain_is_answered_likewise_and_never_run(
    host: ExecutorHarness,
) -> None:
    ran = []

    def note(task: Task) -> None:
        ran.append(task.id)

    async def note_async(task: Task) -> None:
        note(task)

    host.executor.cancel_all("draining: now")
    for index in (host.start(note), host.start(note_async)):
        assert await host.outcome(index) == Failed("draining: now")
        assert host.of(index) == ["finish", "freed"]
    assert ran == []


async def test_a_drained_handler_that_swallows_its_cancellation_is_stuck_long_before_its_deadline(
    host: ExecutorHarness,
) -> None:
    index = host.start(handlers.swallow_cancellation, payload=b'{"sleep_ms":600}')
    await asyncio.sleep(0)
    host.executor.cancel_all("draining: now")
    await host.freed(index)
    assert host.of(index) == ["finish", "stuck", "freed"]
