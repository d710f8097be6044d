"""Runs handlers, coroutines on the loop and plain functions in threads: each attempt gets one outcome, by its deadline,
whatever the handler does. Refuses as `overloaded:` what finds no thread (`thread_pool.py` knows that). Logs an
exception after its answer has left, since hooks on `logging` (Sentry's) may take any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from ajhost.adapters.logs.log_record import CURRENT_TASK
from ajhost.adapters.threads import ThreadCalls
from ajhost.api import Task
from ajhost.core.report_throttle import StacksGate
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.roles import attempt_records
from ajhost.roles.middleware import around
from ajhost.roles.worker import forked_child
from ajhost.roles.worker.deadline_enforcement import Deadlines, exceeded
from ajhost.roles.worker.exit import fail
from ajhost.roles.worker.handler_outcome import describe, outcome_of_exception, outcome_of_result
from ajhost.roles.worker.request import ANSWERED, Attempt, ExecutorEvents, StuckReason
from ajhost.roles.worker.stacks import stacks_of
from ajhost.roles.worker.thread_pool import NoThreads, Threads

_log = logging.getLogger("ajhost.worker")


class Executor:
    """The runner of handlers, on the loop and in threads. It calls the methods of each `Attempt`.

    `begin`: immediately before the handler's first instruction, in the thread that executes it; if it returns False,
    the handler is not run. `answer`: once, when the handler ends, or at its deadline before it is cancelled. `end`:
    when the code has really ended and its slot is free. A handler whose deadline passes before it begins is not run.
    Code that runs on (a thread at its deadline, an asyncio task `kill_grace` seconds after a cancellation that it
    swallowed) is stuck, and keeps its slot.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        capacity: int,
        kill_grace: float,
        flush_after: Callable[[Callable[[], None]], None],
        events: ExecutorEvents,
        stacks: StacksGate | None = None,
    ) -> None:
        """`flush_after(work)` must call `work`, which ends attempts of threads, and may send replies after it.

        `stacks`: limits how often the stacks of tasks at their deadlines are logged; None: never.
        """
        self._loop = loop
        self._context = contextvars.copy_context()
        """Copied for each handler: most start when another one ends, and must not see the context variables of that."""
        self._events = events
        self._threads = Threads(capacity)
        self.thread_calls = ThreadCalls(loop, flush_after)
        self._post = self.thread_calls.post
        self._attempts: set[Attempt] = set()
        self._deadlines = Deadlines(loop, self._attempts, kill_grace, self._threads, events, stacks)
        self._over: Failed | None = None
        self.capacity = capacity
        """How many handlers may run at once; 0 when this worker may start no more."""
        self.busy = 0
        """How many handlers' code has not ended."""

    def start(self, attempt: Attempt) -> None:
        """Starts a handler. On the loop nothing of it happens before this has returned; a thread may begin at once."""
        self.busy += 1
        attempt.route.busy += 1
        self._attempts.add(attempt)
        handler = attempt.handler
        if self._over is not None:
            self._loop.call_soon(self._end, attempt, self._over)
        elif handler.is_async:
            # `_run_on_loop`, inlined: one call less for each task
            attempt.work = asyncio.Task(
                self._on_loop(attempt, handler.function),
                loop=self._loop, name="handler", context=self._context.copy(),
            )  # fmt: skip
        elif handler.middleware:
            call = around(handler.middleware, lambda task: self._called_in_thread(attempt, task))
            self._run_on_loop(attempt, call, self._context.copy())
        else:
            try:
                self._threads.run(attempt.thread_name, self._context.copy(), lambda: self._in_thread(attempt))
            except NoThreads as refusal:
                failed = Failed.because(FailureReason.OVERLOADED, str(refusal))
                self._loop.call_soon(self._end, attempt, failed)
        if attempt.deadline < self._deadlines.soon_enough:
            self._deadlines.sweep_by(attempt.deadline)

    # -- on the loop ------------------------------------------------------------------------------

    def _run_on_loop(self, attempt: Attempt, function: Callable[[Task], Any], context: contextvars.Context) -> None:
        attempt.work = asyncio.Task(self._on_loop(attempt, function), loop=self._loop, name="handler", context=context)

    async def _on_loop(self, attempt: Attempt, function: Callable[[Task], Any]) -> None:
        # asyncio does not enter a task that is cancelled before its first step, so `Deadlines` cancels only RUNNING.
        try:
            attempt.begun = now = time.monotonic()
            if now >= attempt.deadline and attempt.phase is not ANSWERED:
                # the loop, or the whole process, stood still
                self._end(attempt, Failed(exceeded(attempt)))
                return
            if not attempt.begin():
                self._free(attempt)
                return
            CURRENT_TASK.set(attempt)
            try:
                result = await function(attempt.task)
                if forked_child.here:
                    forked_child.came_back()
                outcome = outcome_of_result(result)
            except NoThreads as refusal:  # of a plain function behind middleware
                outcome = Failed.because(FailureReason.OVERLOADED, str(refusal))
            except BaseException as error:
                outcome = _outcome_of_error(error)
                if attempt.phase is not ANSWERED:
                    attempt.logged = True
                    attempt.answer(outcome)
                    # the answer leaves in this turn of the loop: what a hook on logging does may take any time
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(0)
                    _log_error(attempt, outcome, error)
                    self._free(attempt)
                    return
            if attempt.phase is ANSWERED:
                self._end(attempt, outcome)
                return
            attempt.answer(outcome)
            self._free(attempt)
        except BaseException as error:  # not the handler's: how much of this attempt was done is not known
            fail(error, "an exception in the executor")

    # -- in a thread ------------------------------------------------------------------------------

    def _in_thread(self, attempt: Attempt) -> None:
        attempt.begun = time.monotonic()
        if not attempt.begin_in_thread():
            self._post(self._landed, attempt, None)
            return
        CURRENT_TASK.set(attempt)
        try:
            result = attempt.handler.function(attempt.task)
            if forked_child.here:
                forked_child.came_back()
            if inspect.isawaitable(result):  # a coroutine function in disguise
                attempt.returned()
                self._post(self._adopt, attempt, result, contextvars.copy_context())
                return
            outcome = outcome_of_result(result)
        except BaseException as error:
            outcome = _outcome_of_error(error)
            if attempt.phase is not ANSWERED:
                attempt.logged = True
                attempt.returned()
                self._post(self._answer_for_thread, attempt, outcome)
                _log_error(attempt, outcome, error)
                self._post(self._landed, attempt, None)
                return
        attempt.returned()
        self._post(self._landed, attempt, outcome)

    def _landed(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """Ends an attempt whose thread is done. `outcome`: None if it is answered, or another process has it."""
        self._left_thread(attempt)
        if outcome is None:
            self._free(attempt)
        else:
            self._end(attempt, outcome)

    def _adopt(self, attempt: Attempt, result: Awaitable[object], context: contextvars.Context) -> None:
        self._left_thread(attempt)
        if attempt.phase is ANSWERED:
            if inspect.iscoroutine(result):
                result.close()  # it has not begun
            self._free(attempt)
            return
        self._run_on_loop(attempt, lambda _: result, context)

    async def _called_in_thread(self, attempt: Attempt, task: Task) -> Any:
        """Calls a plain function in a thread, in the context of the middleware that awaits it."""
        landed: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()

        def land(result: Any, error: BaseException | None) -> None:
            if not landed.done():
                self._threads.done()
                landed.set_result((result, error))
            else:  # it was given up meanwhile
                self._threads.found()

        def work() -> None:
            if landed.cancelled():  # while it waited for a thread
                self._post(land, None, None)
                return
            try:
                result = attempt.handler.function(task)
            except BaseException as error:
                if forked_child.here:
                    forked_child.came_back(error)
                self._post(land, None, error)
            else:
                if forked_child.here:
                    forked_child.came_back()
                self._post(land, result, None)

        self._threads.run(attempt.thread_name, contextvars.copy_context(), work)
        try:
            result, error = await landed
        except asyncio.CancelledError:
            landed.cancel()
            self._deadlines.give_up(attempt, StuckReason.THREAD)
            raise
        if error is not None:
            raise error
        return await result if inspect.isawaitable(result) else result

    def _left_thread(self, attempt: Attempt) -> None:
        if attempt.stuck is StuckReason.THREAD:
            self._threads.found()
        else:
            self._threads.done()

    # -- its end ----------------------------------------------------------------------------------

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        self._answer(attempt, outcome)
        self._free(attempt)

    @staticmethod
    def _answer(attempt: Attempt, outcome: Outcome) -> None:
        if attempt.phase is ANSWERED:
            _log.debug("route %r: task %s ended after its answer", attempt.handler.route, attempt.task.id)
        else:
            attempt.answer(outcome)

    def _answer_for_thread(self, attempt: Attempt, outcome: Outcome) -> None:
        """Answers for a thread that still logs its exception, for which it has time until the deadline."""
        if attempt.phase is not ANSWERED:
            attempt.grace = attempt.deadline
        self._answer(attempt, outcome)

    def _free(self, attempt: Attempt) -> None:
        self._attempts.discard(attempt)
        attempt.work = None  # whose context refers to the attempt
        attempt.end()
        route, busy = attempt.route, self.busy
        was_full = busy == self.capacity or route.busy == route.limit
        self.busy = busy - 1
        route.busy -= 1
        if route.permits is not None:
            route.permits.give()
            was_full = True
        if was_full:
            self._events.slot_freed()

    # -- orders and questions of other parts ------------------------------------------------------

    def cancel(self, task: str, outcome: Outcome) -> bool:
        """Answers for the tasks of that id at once, then cancels them. Returns whether this worker had one."""
        found = [attempt for attempt in self.unanswered() if attempt.record.id == task]
        now = time.monotonic()
        for attempt in found:
            self._deadlines.answer_and_cancel(attempt, outcome, now)
        return any(attempt.is_ours for attempt in found)

    def cancel_all(self, text: str) -> None:
        """Answers all attempts with `text` and cancels them, when the drain must end.

        Attempts that start later get the same answer: slots that become free here are offered to requests that wait.
        """
        self._over = Failed(text)
        now = time.monotonic()
        for attempt in self.unanswered():
            self._deadlines.answer_and_cancel(attempt, self._over, now)

    def unanswered(self) -> list[Attempt]:
        return [a for a in self._attempts if a.phase is not ANSWERED]

    def running(self) -> dict[str, int]:
        """Returns how many tasks of each route were started and have no answer yet."""
        return Counter(attempt.handler.route for attempt in self.unanswered())

    def stacks(self, task: str) -> str:
        """Returns, for people, what the task of that id is doing, or each task if `task` is empty."""
        return stacks_of(a for a in self._attempts if task in ("", a.record.id))

    @property
    def stuck(self) -> int:
        """How many times code ran on past its deadline."""
        return self._deadlines.stuck

    @property
    def broken(self) -> bool:
        """Whether an asyncio task has ended without ending its attempt."""
        return any(attempt.work is not None and attempt.work.done() for attempt in self._attempts)


def _outcome_of_error(error: BaseException) -> Outcome:
    if forked_child.here:
        forked_child.came_back(error)
    return outcome_of_exception(error)


def _log_error(attempt: Attempt, outcome: Outcome, error: BaseException) -> None:
    """Logs the exception of a handler. Called in the handler's context, which the application's log hooks see."""
    # such a hook may raise anything
    with contextlib.suppress(BaseException):
        if isinstance(outcome, Terminated):
            attempt_records.log_outcome(outcome, attempt.labels(), logging.INFO)
        else:
            attempt_records.log_exception(error, describe(error), attempt.labels())
