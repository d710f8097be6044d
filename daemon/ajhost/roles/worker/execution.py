"""Running handlers: one outcome each, by its deadline, whatever the handler does."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
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


class StuckReason(Enum):
    """Why a handler's code runs on."""

    THREAD = "a thread, which cannot be stopped,"
    CANCELLATION = "a handler that swallowed its cancellation"


class _Run:
    __slots__ = ("answered", "deadline", "grace", "handler", "stuck", "task", "work")

    def __init__(self, handler: LoadedHandler, task: Task, deadline: float) -> None:
        self.handler = handler
        self.task = task
        self.deadline = deadline
        self.work: asyncio.Task[None] | None = None
        self.grace = 0.0
        self.answered = self.stuck = False


class Execution:
    """Runs handlers on the loop and in threads.

    For each `start`, `finish(key, outcome)` is called exactly once: when the handler ends, or first thing at its
    deadline, and only then is it cancelled. `freed(key)` is called exactly once, when its code has really ended and
    the slot is free. `stuck(key, reason)` is called once for code that runs on: a thread at its deadline, a task that
    swallows its cancellation `kill_grace` seconds after it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        finish: Callable[[int, Outcome], None],
        freed: Callable[[int], None],
        stuck: Callable[[int, StuckReason], None],
        kill_grace: float,
        threads: int,
    ) -> None:
        self._loop = loop
        self._finish, self._freed, self._stuck = finish, freed, stuck
        self._kill_grace = kill_grace
        self._threads = Threads(threads)
        self._runs: dict[int, _Run] = {}
        self._sweeping = False
        self.busy = 0
        """How many handlers' code has not ended."""

    def start(self, key: int, handler: LoadedHandler, task: Task, deadline: float) -> None:
        """Starts a handler. `deadline` is monotonic seconds; `key` is not in use."""
        self.busy += 1
        run = self._runs[key] = _Run(handler, task, deadline)
        if handler.is_async:
            run.work = self._loop.create_task(self._on_loop(key, run))
        else:
            self._threads.run(f"{handler.route or 'catch-all'} {task.id}", lambda: self._in_thread(key, run))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP, self._sweep)

    async def _on_loop(self, key: int, run: _Run) -> None:
        try:
            outcome = outcome_of_result(await run.handler.function(run.task))
        except BaseException as error:
            outcome = self._judge(run, error)
        self._end(key, run, outcome)

    def _in_thread(self, key: int, run: _Run) -> None:
        try:
            result = run.handler.function(run.task)
            if inspect.isawaitable(result):  # a coroutine function in disguise
                self._loop.call_soon_threadsafe(self._adopt, key, run, result)
                return
            outcome = outcome_of_result(result)
        except BaseException as error:
            outcome = self._judge(run, error)
        self._loop.call_soon_threadsafe(self._end, key, run, outcome)

    def _adopt(self, key: int, run: _Run, result: object) -> None:
        async def await_it() -> None:
            try:
                outcome = outcome_of_result(await result)  # type: ignore[misc]  # `isawaitable` said so
            except BaseException as error:
                outcome = self._judge(run, error)
            self._end(key, run, outcome)

        run.work = self._loop.create_task(await_it())
        if run.answered:
            run.work.cancel()

    def _judge(self, run: _Run, error: BaseException) -> Outcome:
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

    def _end(self, key: int, run: _Run, outcome: Outcome) -> None:
        del self._runs[key]
        if run.stuck and not run.handler.is_async:
            self._threads.found()
        if not run.answered:
            self._finish(key, outcome)
        self.busy -= 1
        self._freed(key)

    # -- deadlines ------------------------------------------------------------------------------

    def _sweep(self) -> None:
        if not self._runs:
            self._sweeping = False
            return
        now = time.monotonic()
        due = [(key, run) for key, run in self._runs.items() if run.deadline <= now and not run.stuck]
        for key, run in due:
            if not run.answered:
                self._expire(key, run, now)
            elif now >= run.grace:
                self._give_up(key, run, StuckReason.CANCELLATION)
        self._loop.call_later(_SWEEP, self._sweep)

    def _expire(self, key: int, run: _Run, now: float) -> None:
        self._answer(
            key, run, Failed(f"deadline exceeded: route {run.handler.route!r} was still running"), now
        )

    def _answer(self, key: int, run: _Run, outcome: Outcome, now: float) -> None:
        """The answer first, then the cancellation."""
        run.answered = True
        run.deadline = min(run.deadline, now)
        run.grace = now + self._kill_grace
        self._finish(key, outcome)
        if run.work is not None:
            run.work.cancel()
        elif not run.handler.is_async:
            self._give_up(key, run, StuckReason.THREAD)

    def _give_up(self, key: int, run: _Run, reason: StuckReason) -> None:
        run.stuck = True
        if reason is StuckReason.THREAD:
            self._threads.lost()
        self._stuck(key, reason)

    def cancel_all(self, text: str) -> None:
        """The time to drain is over: whatever runs is answered with `text` and cancelled."""
        now = time.monotonic()
        for key, run in list(self._runs.items()):
            if not run.answered:
                self._answer(key, run, Failed(text), now)
