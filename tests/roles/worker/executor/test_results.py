"""What handlers return and raise, and what is logged of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import pytest

from ajhost.adapters.logs.log_record import task_labels
from ajhost.api import Task, TerminateTask
from ajhost.protocol.outcome import Completed, Failed, Terminated
from tests.roles.worker.executor.harness import LONG, ExecutorHarness
from tests.support import handlers


async def test_an_async_handler_is_answered_and_then_freed_in_one_turn(host: ExecutorHarness) -> None:
    index = host.start(handlers.echo, payload=b"as it came")
    assert host.executor.busy == 1
    assert host.events == []
    await asyncio.sleep(0)
    assert host.of(index) == ["finish", "freed"]
    assert await host.outcome(index) == Completed(b"as it came")
    assert host.executor.busy == 0


async def test_a_plain_function_runs_in_a_thread_that_bears_its_route_and_task(host: ExecutorHarness) -> None:
    names = []

    def handler(task: Task) -> dict[str, int]:
        names.append(threading.current_thread().name)
        return {"n": 1}

    index = host.start(handler)
    assert await host.outcome(index) == Completed(b'{"n":1}')
    assert host.of(index) == ["finish", "freed"]
    index = host.start(handler, route="")
    await host.freed(index)
    assert names == ["email:new T0", "catch-all T1"]


@pytest.mark.parametrize("function", [handlers.strange, handlers.strange_sync])
@pytest.mark.parametrize("name", handlers.STRANGE)
async def test_whatever_a_handler_raises_is_its_outcome_and_the_next_one_runs(
    host: ExecutorHarness, function: Callable[[Task], Any], name: str
) -> None:
    index = host.start(function, payload=b'{"exception":"%b"}' % name.encode())
    outcome = await host.outcome(index)
    if name == "EmptyTerminate":
        assert outcome == Terminated("TerminateTask")
    else:
        assert isinstance(outcome, Failed)
        assert outcome.text.startswith("handler error: ")
    for after in (handlers.echo, handlers.echo_sync):
        assert await host.outcome(host.start(after, payload=b"next")) == Completed(b"next")


@pytest.mark.parametrize("function", [handlers.system_exit, handlers.system_exit_sync])
async def test_sys_exit_in_a_handler_fails_the_task_and_the_worker_lives(
    host: ExecutorHarness, function: Callable[[Task], Any]
) -> None:
    assert await host.outcome(host.start(function)) == Failed("handler error: SystemExit: 4")


async def test_a_handler_that_cancels_itself_fails_like_any_other(host: ExecutorHarness) -> None:
    async def handler(task: Task) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(LONG)

    assert await host.outcome(host.start(handler)) == Failed("handler error: CancelledError")


async def test_timeouts_and_task_groups_of_asyncio_work_in_a_handler(host: ExecutorHarness) -> None:
    async def handler(task: Task) -> list[str]:
        said = []
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LONG)
        except TimeoutError:
            said.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        return [*said, "group"]

    assert await host.outcome(host.start(handler)) == Completed(b'["timeout","group"]')


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_function_that_returns_an_awaitable_is_awaited_on_the_loop(
    host: ExecutorHarness, in_thread: bool
) -> None:
    loop_thread = threading.get_ident()
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen")

    async def inner() -> bool:
        return threading.get_ident() == loop_thread and seen.get() == "set before"

    def handler(task: Task) -> Awaitable[bool]:
        seen.set("set before")
        return inner()

    async def on_loop(task: Task) -> bool:
        seen.set("set before")
        return await inner()

    assert await host.outcome(host.start(handler if in_thread else on_loop)) == Completed(b"true")


@pytest.mark.parametrize("in_thread", [False, True])
async def test_each_handler_has_a_context_of_its_own_whoever_started_it(in_thread: bool) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("of all")
    host = ExecutorHarness(threads=1)

    def look(task: Task) -> str:
        before = variable.get()
        variable.set(task.id)
        return before

    async def look_async(task: Task) -> str:
        return look(task)

    another = contextvars.copy_context()
    another.run(variable.set, "of a handler that ended")
    for _ in range(4):
        index = another.run(host.start, look if in_thread else look_async)
        assert await host.outcome(index) == Completed(b"of all")
        await host.freed(index)
    assert variable.get() == "of all"


@pytest.mark.parametrize("in_thread", [False, True])
async def test_what_a_handler_logs_bears_its_task(host: ExecutorHarness, in_thread: bool) -> None:
    async def on_loop(task: Task) -> dict[str, str]:
        return task_labels()

    def function(task: Task) -> dict[str, str]:
        return task_labels()

    outcome = await host.outcome(host.start(function if in_thread else on_loop))
    assert isinstance(outcome, Completed)
    labels = json.loads(outcome.body)
    assert 0 <= float(labels.pop("aj_duration")) < 10
    assert labels == {"aj_task": "T0", "aj_type": "email:new", "aj_route": "email:new", "aj_tries": "2"}


@pytest.mark.parametrize("function", [handlers.strange, handlers.strange_sync])
async def test_an_exception_is_logged_once_with_its_task_and_traceback(
    host: ExecutorHarness, caplog: pytest.LogCaptureFixture, function: Callable[[Task], Any]
) -> None:
    await host.freed(host.start(function, payload=b'{"exception":"BaseException"}'))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info is not None
    assert record.getMessage() == "route 'email:new': _Base: a BaseException"
    labels = {name: value for name, value in vars(record).items() if name.startswith("aj_")}
    assert 0 <= float(labels.pop("aj_duration")) < 10
    assert labels == {
        "aj_task": "T0",
        "aj_type": "email:new",
        "aj_route": "email:new",
        "aj_tries": "2",
        "aj_outcome": "failed",
        "aj_reason": "handler error",
    }


async def test_a_termination_is_logged_and_is_no_warning(
    host: ExecutorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ajhost")

    async def terminate(task: Task) -> NoReturn:
        raise TerminateTask("never")

    await host.freed(host.start(handlers.echo))
    index = host.start(terminate)
    assert await host.outcome(index) == Terminated("never")
    await host.freed(index)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "route 'email:new': AJ-Terminate: never")
    ]


class _Hostile(logging.Handler):
    def emit(self, record: logging.LogRecord) -> NoReturn:
        raise SystemExit("an application's own log handler")


@pytest.mark.parametrize("function", [handlers.error, handlers.strange_sync])
async def test_a_log_that_fails_does_not_cost_the_answer(
    host: ExecutorHarness, function: Callable[[Task], Any]
) -> None:
    log, hostile = logging.getLogger("ajhost.worker"), _Hostile()
    log.addHandler(hostile)
    try:
        outcome = await host.outcome(host.start(function, payload=b'{"exception":"Empty"}'))
    finally:
        log.removeHandler(hostile)
    assert isinstance(outcome, Failed)
    assert outcome.text.startswith("handler error: RuntimeError")


@pytest.mark.parametrize("function", [handlers.echo, handlers.echo_sync])
async def test_a_run_leaves_nothing_for_the_garbage_collector(
    host: ExecutorHarness, function: Callable[[Task], Any]
) -> None:
    async def hundred() -> None:
        for index in [host.start(function) for _ in range(100)]:
            await host.freed(index)

    await hundred()
    while gc.collect():  # what other tests have left, and what its finalizers leave
        pass
    gc.disable()
    try:
        await hundred()
        assert gc.collect() < 100
    finally:
        gc.enable()
