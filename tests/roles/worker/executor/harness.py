"""An execution under test, which writes down what it calls back."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from ajhost.api import Task
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.task_record import TaskRecord, read_task
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.middleware import Middleware
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.request import Attempt, ExecutorEvents, Phase, StuckReason
from ajhost.roles.worker.routes import Route

_Result = TypeVar("_Result")

GRACE = 0.15
"""Seconds from a deadline to the moment when code that goes on is stuck."""
LONG = 30.0
SOON = 0.05
LIMIT = 60.0
"""Seconds after which a test that waits has failed."""


@dataclass(frozen=True, slots=True)
class Event:
    """One call back: `finish`, `freed` or `stuck`, the run's index, and what was said."""

    what: str
    index: int
    said: Outcome | StuckReason | None
    at: float


class Noted(Attempt):
    """An attempt that writes down what becomes of it."""

    __slots__ = ("host", "index")

    def __init__(
        self,
        host: ExecutorHarness,
        index: int,
        route: Route,
        record: TaskRecord,
        payload: bytes,
        received: float,
        ends: float,
    ) -> None:
        self.host, self.index = host, index
        super().__init__(route, record, Task(record, ends, payload), ends, received)

    def begin(self) -> bool:
        if self.phase is Phase.ANSWERED:
            return super().begin()
        self.host.begun.append(("begin", self.index, threading.get_ident()))
        if self.index in self.host.others:
            return False
        return super().begin()

    def answer(self, outcome: Outcome) -> Phase:
        before = super().answer(outcome)
        self.host.note("finish", self.index, outcome)
        return before

    def end(self) -> None:
        super().end()
        self.host.note("freed", self.index, None)


class ExecutorHarness(ExecutorEvents):
    """An executor that writes down what becomes of its attempts."""

    def __init__(self, threads: int) -> None:
        self.executor = Executor(
            asyncio.get_running_loop(),
            capacity=threads,
            kill_grace=GRACE,
            flush_after=lambda work: work(),
            events=self,
        )
        self.events: list[Event] = []
        self.others: set[int] = set()
        """Attempts whose request somebody else has taken when they are about to begin."""
        self.begun: list[tuple[str, int, int]] = []
        """`begin` or what a test adds, the attempt's index, and the thread."""
        self._called = asyncio.Event()
        self._started = 0
        self._known_stuck: set[int] = set()

    def code_stuck(self, reason: StuckReason) -> None:
        """Notes it, once for each attempt."""
        for attempt in self.executor._attempts:
            if isinstance(attempt, Noted) and attempt.stuck and attempt.index not in self._known_stuck:
                self._known_stuck.add(attempt.index)
                self.note("stuck", attempt.index, reason)

    def note(self, what: str, index: int, said: Outcome | StuckReason | None) -> None:
        """Something has become of an attempt."""
        self.events.append(Event(what, index, said, time.monotonic()))
        self._called.set()

    def start(
        self,
        function: Callable[[Any], Any],
        *,
        seconds: float = LONG,
        timeout: float | None = None,
        payload: bytes = b"{}",
        route: str = "email:new",
        middleware: Sequence[Middleware] = (),
    ) -> int:
        """Starts a handler whose deadline is that far away; the index of its run."""
        is_async = inspect.iscoroutinefunction(function)
        handler = LoadedHandler(route, "m:f", function, is_async, timeout, middleware=tuple(middleware))
        record = read_task(b'{"id":"T%d","type":"email:new","queue":"Q","tries":2}' % self._started)
        now = time.monotonic()
        index = self._started
        self._started += 1
        route_ = Route(0, handler, "")
        self.executor.start(Noted(self, index, route_, record, payload, now, now + seconds))
        return index

    def of(self, index: int) -> list[str]:
        """What was called back of a run, in order."""
        return [event.what for event in self.events if event.index == index]

    def event(self, what: str, index: int) -> Event:
        """The only one of its kind."""
        (found,) = [event for event in self.events if (event.what, event.index) == (what, index)]
        return found

    async def outcome(self, index: int) -> Outcome:
        """The run's outcome, as soon as there is one."""
        await self.until(lambda: "finish" in self.of(index))
        said = self.event("finish", index).said
        assert isinstance(said, Completed | Failed | Terminated)
        return said

    async def freed(self, index: int) -> None:
        """Waits until the slot is free again."""
        await self.until(lambda: "freed" in self.of(index))

    async def until(self, true: Callable[[], bool]) -> None:
        """Looks again after each call back."""
        async with asyncio.timeout(LIMIT):
            while not true():
                self._called.clear()
                await self._called.wait()


async def forever(task: Task) -> NoReturn:
    """A handler that ends when it is cancelled."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("not reached")


def said_about_deadline(outcome: Outcome) -> str:
    """The text of an answer given at a deadline."""
    assert isinstance(outcome, Failed)
    assert outcome.text.startswith("deadline exceeded: ")
    return outcome.text
