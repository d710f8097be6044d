"""Makes tasks by hand, and runs a handler as a worker does: with the same binding, executor, deadline and encoding.
Ends code that swallows its cancellation, and collects the task's log records.

The code for a router's requests reads the tasks, so a handler sees what it would see of a router's.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from ajhost.adapters.logs.log_record import task_labels
from ajhost.api import Task, Worker
from ajhost.protocol import exact_json, outcome, timestamps
from ajhost.protocol.json_encoding import encode
from ajhost.protocol.reply_encoding import encode_reply
from ajhost.protocol.task_record import encode_task, new_id, read_task
from ajhost.roles.handlers import LoadedHandler, callable_of
from ajhost.roles.lifespan import check_lifespan, manager_of
from ajhost.roles.middleware import around, check_middleware
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.request import Attempt, ExecutorEvents, Phase, StuckReason
from ajhost.roles.worker.routes import Route

_DEFAULT_TIMEOUT = 60.0
"""Seconds of a task without a deadline: the default of `[workers] default_timeout`."""
_MAX_PAYLOAD = 1 << 20
"""The default `max_payload` of a nats-server, in bytes."""
_KILL_GRACE = 1.0
_THREADS = 1


def make_task(
    payload: object = None,
    *,
    type: str = "test",
    id: str | None = None,
    queue: str = "DEFAULT",
    tries: int = 1,
    max_tries: int = 10,
    deadline: float | datetime | None = None,
    created: datetime | None = None,
    dependencies: Sequence[str] = (),
    dependency_results: Mapping[str, Any] | None = None,
    state: Any = None,
) -> Task[Any]:
    """Returns a task as its handler would see it.

    :param payload: bytes as they are, `str` as UTF-8, None for none; anything else as JSON, models included.
    :param deadline: seconds from now, or the moment (aware); 60 s without one.
    :param dependency_results: id to the result's payload (JSON), or to `{"payload": ..., "completed": ...}`.
    :param state: the value of `task.state`, which a lifespan would have yielded.
    :raises ValueError: no router sends such a task.
    """
    now, now_ns = time.monotonic(), time.time_ns()
    seconds = (deadline - datetime.now(UTC)).total_seconds() if isinstance(deadline, datetime) else deadline
    more: dict[str, object] = {}
    if dependencies or dependency_results:
        completed = timestamps.render(now_ns)
        results = {
            key: value if isinstance(value, dict) and "payload" in value else {"payload": value, "completed": completed}
            for key, value in (dependency_results or {}).items()
        }
        more["dependencies"] = list(dependencies) or list(results)
        more["dependency_results"] = orjson.Fragment(encode(results))
    body = encode_task(
        id=id or new_id(), type=type, queue=queue, payload=payload_bytes(payload), tries=tries, max_tries=max_tries,
        created_ns=now_ns if created is None else timestamps.parse(created.astimezone(UTC).isoformat()),
        tried_ns=now_ns,
        more=more,
    )  # fmt: skip
    return Task(read_task(body), now + (_DEFAULT_TIMEOUT if seconds is None else seconds), None, state)


def payload_bytes(payload: object) -> bytes:
    """Returns a payload's bytes: bytes as they are, `str` as UTF-8, None as nothing, anything else as JSON."""
    if payload is None:
        return b""
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    return encode(payload)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an attempt, as the router would store it."""

    result: bytes | None
    """The result; None if the attempt failed."""
    error: str | None
    """The last error, as the router gets it: one line, cut to its limit. None if the attempt completed."""
    terminated: bool
    """Whether no further try follows (AJ-Terminate)."""
    seconds: float
    """How long the attempt took."""
    log: tuple[logging.LogRecord, ...] = field(default=(), repr=False)
    """The log records of this task, by the handler and about it, from INFO up."""

    def json(self) -> Any:
        """Returns the result decoded from JSON. :raises AssertionError: there is none; its text has the error."""
        if self.result is None:
            raise AssertionError(f"there is no result: {self.error}")
        return exact_json.loads(self.result)

    @property
    def text(self) -> str:
        """The result as text. :raises AssertionError: there is none; its text has the error."""
        if self.result is None:
            raise AssertionError(f"there is no result: {self.error}")
        return self.result.decode()


async def run(
    handler: Callable[..., Any] | str,
    payload: object = None,
    *,
    type: str = "test",
    tries: int = 1,
    deadline: float | None = None,
    timeout: float | None = None,
    state: Any = None,
    middleware: Sequence[Callable[[Any, Any], Any]] = (),
) -> Outcome:
    """Runs one attempt at a task by `handler`.

    Returns when the outcome is decided and the handler's code has ended; for code that swallows its cancellation, at
    most a second past the deadline. It does not wait for a thread that runs on.

    :param handler: the function, or `module:function` as in the settings.
    :param payload: a task of `make_task`, or the payload of one: bytes, `str` as UTF-8, anything else as JSON.
    :param deadline: seconds until the router stops waiting; `timeout`: the route's own, as in the settings.
    :param state: the value of `task.state`.
    :param middleware: the middleware around the handler, the outermost first.
    :raises ajhost.roles.handlers.NoHandler: this is no handler, or its signature cannot be bound.
    """
    name, function = _find(handler)
    call, is_async, reader = callable_of(name, function)
    task = (
        payload
        if isinstance(payload, Task)
        else make_task(payload, type=type, tries=tries, deadline=deadline, state=state)
    )
    chain = tuple(check_middleware(_find(one)[0], one) for one in middleware)
    if is_async:
        call, chain = around(chain, call), ()
    loaded = LoadedHandler(type, name, call, is_async, timeout, payload=reader, middleware=chain)
    with _logged(task.id) as records:
        began = time.monotonic()
        said = await execute(loaded, task)
        took = time.monotonic() - began
    result, error, terminated = as_stored(said, task._record.size)
    return Outcome(result, error, terminated, took, tuple(records))


@contextlib.asynccontextmanager
async def lifespan(function: Callable[..., Any] | str) -> AsyncIterator[Any]:
    """Enters a lifespan as a worker does, and yields its state, for `run(handler, payload, state=...)`.

        async with lifespan("shop.app:lifespan") as state:
            outcome = await run(send, {"to": "ada@example.net"}, state=state)

    :raises ajhost.roles.binding.Unfit: the function is no lifespan.
    """
    name, found = _find(function)
    worker = Worker(slot=0, generation=1, pid=os.getpid())
    async with manager_of(name, check_lifespan(name, found), worker) as state:
        yield state


def run_sync(handler: Callable[..., Any] | str, payload: object = None, **options: Any) -> Outcome:
    """Runs one attempt as `run` does, for tests that are no coroutines."""
    return asyncio.run(run(handler, payload, **options))


class _Try(Attempt, ExecutorEvents):
    """An attempt whose answer goes to a test. `ended` is set when the code has ended, or is stuck."""

    __slots__ = ("decided", "ended")

    def __init__(self, handler: LoadedHandler, task: Task[Any], deadline: float, received: float) -> None:
        super().__init__(Route(0, handler, ""), task._record, task, deadline, received)
        self.decided: asyncio.Future[outcome.Outcome] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()

    def answer(self, outcome: outcome.Outcome) -> Phase:
        """Takes the attempt's one answer."""
        self.decided.set_result(outcome)
        return super().answer(outcome)

    def end(self) -> None:
        super().end()
        self.ended.set()

    def code_stuck(self, reason: StuckReason) -> None:
        self.ended.set()


async def execute(handler: LoadedHandler, task: Task[Any]) -> outcome.Outcome:
    """Runs one task with the worker's executor. Returns its outcome when the code has ended, or is stuck."""
    now = time.monotonic()
    ends = now + task.remaining()
    if handler.timeout is not None:
        ends = min(ends, now + handler.timeout)
    attempt = _Try(handler, task, ends, now)
    executor = Executor(
        asyncio.get_running_loop(),
        capacity=_THREADS,
        kill_grace=_KILL_GRACE,
        flush_after=lambda work: work(),
        events=attempt,
    )
    executor.start(attempt)
    said = await attempt.decided
    await attempt.ended.wait()
    if attempt.work is not None and isinstance(work := attempt.work, asyncio.Task):
        await _close(work)
    return said


async def _close(work: asyncio.Task[Any]) -> None:
    """Ends code that swallows its cancellation: the loop would wait for it at its end, and with it the test."""
    code = work.get_coro()
    if inspect.iscoroutine(code):
        with contextlib.suppress(RuntimeError):  # the code ignores GeneratorExit as well
            code.close()
            work.cancel()  # wakes the task, which finds its code closed
            await asyncio.wait({work})
            work.exception()


def as_stored(said: outcome.Outcome, task_size: int) -> tuple[bytes | None, str | None, bool]:
    """Returns result, error, and whether no try follows, as a router reads them from the reply.

    So a result that is too large is an error, and a long text is cut.
    """
    command = encode_reply(b"reply", said, _MAX_PAYLOAD, task_size)
    if command.startswith(b"PUB"):
        assert isinstance(said, outcome.Completed)
        return said.body, None, False
    header = command.partition(b"\r\n")[2]
    name, _, text = header.splitlines()[1].partition(b": ")
    return None, text.decode(), name == b"AJ-Terminate"


def _find(handler: Callable[..., Any] | str) -> tuple[str, Any]:
    if not isinstance(handler, str):
        name = getattr(handler, "__qualname__", type(handler).__qualname__)
        return f"{getattr(handler, '__module__', '?')}:{name}", handler
    module, _, attributes = handler.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return handler, found


@contextlib.contextmanager
def _logged(task_id: str) -> Iterator[list[logging.LogRecord]]:
    """Collects the log records of one task, from INFO up, until the block ends."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if task_labels().get("aj_task") == task_id or getattr(record, "aj_task", None) == task_id:
                records.append(record)

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(min(level, logging.INFO) if level else level)
    try:
        yield records
    finally:
        root.setLevel(level)
        root.removeHandler(collector)
