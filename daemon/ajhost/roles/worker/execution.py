"""Running handlers: one outcome each, by its deadline, whatever the handler does."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

from ajhost.api import Task, TerminateTask
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.worker.outcomes import describe, outcome_of_exception, outcome_of_result
from ajhost.roles.worker.threads import Threads

_log = logging.getLogger("ajhost.worker")
_SWEEP = 0.02
"""Seconds between two looks for deadlines. A worker runs few tasks at once, so looking at all of them costs less than a
timer or a heap entry for each."""


_NO_LIMIT = 1 << 62


class StuckReason(Enum):
    """Why a handler's code runs on."""

    THREAD = "a thread, which cannot be stopped,"
    CANCELLATION = "a handler that swallowed its cancellation"


class Run:
    """A handler's run, with what its caller needs to know again when it is finished: entry, reply subject, route."""

    __slots__ = (
        "answered",
        "deadline",
        "grace",
        "handler",
        "index",
        "reply",
        "route",
        "size",
        "started",
        "stuck",
        "task",
        "work",
    )

    def __init__(
        self,
        handler: LoadedHandler,
        task: Task,
        deadline: float,
        started: float,
        route: Route,
        index: int,
        reply: bytes,
        size: int,
    ) -> None:
        """Times are monotonic seconds; `size` is that of the task's JSON in bytes."""
        self.handler = handler
        self.task = task
        self.deadline = deadline
        self.started = started
        self.route = route
        self.index = index
        self.reply = reply
        self.size = size
        self.answered = self.stuck = False
        self.grace = 0.0
        self.work: asyncio.Task[None] | None = None


class Route:
    """A handler as this worker runs it: how many of its tasks are running here, and where they wait otherwise."""

    __slots__ = ("busy", "handler", "index", "lane", "limit")

    def __init__(self, index: int, handler: LoadedHandler, lane: str) -> None:
        self.index = index
        self.handler = handler
        self.lane = lane
        self.limit = _NO_LIMIT if handler.concurrency is None else handler.concurrency
        self.busy = 0


class Execution:
    """Runs handlers on the loop and in threads.

    For each `start`, `finish(run, outcome)` is called exactly once: when the handler ends, or first thing at its
    deadline, and only then is it cancelled. `freed(run)` is called exactly once, when its code has really ended and
    the slot is free. `stuck(run, reason)` is called once for code that runs on: a thread at its deadline, a task that
    swallows its cancellation `kill_grace` seconds after it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        finish: Callable[[Run, Outcome], None],
        freed: Callable[[Run], None],
        stuck: Callable[[Run, StuckReason], None],
        kill_grace: float,
        threads: int,
    ) -> None:
        self._loop = loop
        self._finish, self._freed, self._stuck = finish, freed, stuck
        self._kill_grace = kill_grace
        self._threads = Threads(threads)
        self._runs: set[Run] = set()
        self._sweeping = False
        self.busy = 0
        """How many handlers' code has not ended."""

    def start(self, run: Run) -> None:
        """Starts a handler."""
        self.busy += 1
        self._runs.add(run)
        if run.handler.is_async:
            run.work = asyncio.Task(self._on_loop(run), loop=self._loop, name="handler")
        else:
            self._threads.run(
                f"{run.handler.route or 'catch-all'} {run.task.id}", lambda: self._in_thread(run)
            )
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP, self._sweep)

    async def _on_loop(self, run: Run) -> None:
        try:
            outcome = outcome_of_result(await run.handler.function(run.task))
        except BaseException as error:
            outcome = self._judge(run, error)
        self._end(run, outcome)

    def _in_thread(self, run: Run) -> None:
        try:
            result = run.handler.function(run.task)
            if inspect.isawaitable(result):  # a coroutine function in disguise
                self._loop.call_soon_threadsafe(self._adopt, run, result)
                return
            outcome = outcome_of_result(result)
        except BaseException as error:
            outcome = self._judge(run, error)
        self._loop.call_soon_threadsafe(self._end, run, outcome)

    def _adopt(self, run: Run, result: object) -> None:
        async def await_it() -> None:
            try:
                outcome = outcome_of_result(await result)  # type: ignore[misc]  # `isawaitable` said so
            except BaseException as error:
                outcome = self._judge(run, error)
            self._end(run, outcome)

        run.work = self._loop.create_task(await_it())
        if run.answered:
            run.work.cancel()

    def _judge(self, run: Run, error: BaseException) -> Outcome:
        if not run.answered and not isinstance(error, TerminateTask):
            task = run.task
            _log.warning(
                "route %r: %s",
                run.handler.route,
                describe(error),
                exc_info=error,
                extra={
                    "aj_task": task.id,
                    "aj_type": task.type,
                    "aj_route": run.handler.route,
                    "aj_tries": task.tries,
                },
            )
        return outcome_of_exception(error)

    def _end(self, run: Run, outcome: Outcome) -> None:
        self._runs.discard(run)
        if run.stuck and not run.handler.is_async:
            self._threads.found()
        if not run.answered:
            self._finish(run, outcome)
        self.busy -= 1
        self._freed(run)

    # -- deadlines ------------------------------------------------------------------------------

    def _sweep(self) -> None:
        if not self._runs:
            self._sweeping = False
            return
        now = time.monotonic()
        due = [run for run in self._runs if run.deadline <= now and not run.stuck]
        for run in due:
            if not run.answered:
                self._expire(run, now)
            elif now >= run.grace:
                self._give_up(run, StuckReason.CANCELLATION)
        self._loop.call_later(_SWEEP, self._sweep)

    def _expire(self, run: Run, now: float) -> None:
        text = f"deadline exceeded: the handler of route {run.handler.route!r} was still running"
        self._answer(run, Failed(text), now)

    def _answer(self, run: Run, outcome: Outcome, now: float) -> None:
        """The answer first, then the cancellation."""
        run.answered = True
        run.deadline = min(run.deadline, now)
        run.grace = now + self._kill_grace
        self._finish(run, outcome)
        if run.work is not None:
            run.work.cancel()
        elif not run.handler.is_async:
            self._give_up(run, StuckReason.THREAD)

    def _give_up(self, run: Run, reason: StuckReason) -> None:
        run.stuck = True
        if reason is StuckReason.THREAD:
            self._threads.lost()
        self._stuck(run, reason)

    def running(self) -> dict[str, int]:
        """How many tasks of each route were started and have no answer yet."""
        return Counter(run.route.handler.route for run in self._runs if not run.answered)

    def cancel_all(self, text: str) -> None:
        """The time to drain is over: whatever runs is answered with `text` and cancelled."""
        now = time.monotonic()
        for run in list(self._runs):
            if not run.answered:
                self._answer(run, Failed(text), now)
