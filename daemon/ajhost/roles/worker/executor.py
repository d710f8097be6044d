"""Running handlers: one outcome each, by its deadline, whatever the handler does."""

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

from ajhost.adapters.linux.thread_calls import ThreadCalls
from ajhost.adapters.log_record import CURRENT_TASK
from ajhost.api import Task, TerminateTask
from ajhost.core.timings import DEADLINE_SWEEP, TIMER_RESOLUTION
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.protocol.reasons import FailureReason
from ajhost.roles import attempts
from ajhost.roles.worker.fail_stop import fail
from ajhost.roles.worker.request import RUNNING, WAITING, Request, RunPhase, StuckReason
from ajhost.roles.worker.result_encoding import describe, outcome_of_exception, outcome_of_result
from ajhost.roles.worker.threads import NoThreads, Threads

_log = logging.getLogger("ajhost.worker")
_NEVER = float("inf")


class Executor:
    """Runs handlers on the loop and in threads.

    For each `start`, `begin(request)` is called immediately before the handler's first instruction, by the thread that
    executes it; if it says False, the handler is not run, nor is it finished. `finish(request, outcome)` is called
    exactly once: when the handler ends, or first thing at its deadline, and only then is it cancelled. `freed(request)`
    is called exactly once, when its code has really ended and the slot is free. `stuck(request, reason)` is called once
    for code that runs on: a thread at its deadline, a task that swallows its cancellation `kill_grace` seconds after
    it. A handler whose deadline comes before its code began is not run at all.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        begin: Callable[[Request], bool],
        finish: Callable[[Request, Outcome], None],
        freed: Callable[[Request], None],
        stuck: Callable[[Request, StuckReason], None],
        kill_grace: float,
        threads: int,
        flush_after: Callable[[Callable[[], None]], None],
    ) -> None:
        """`flush_after(work)` has to call `work`, which finishes runs of threads, and may send their replies after
        it."""
        self._loop = loop
        self._context = contextvars.copy_context()
        """Where all handlers begin: most are started when another ends, and must not see what that left in its own."""
        self._begin, self._finish, self._freed, self._stuck = begin, finish, freed, stuck
        self._kill_grace = kill_grace
        self._threads = Threads(threads)
        self._post = ThreadCalls(loop, flush_after).post
        self._requests: set[Request] = set()
        self._sweep_at = _NEVER
        self._sweeper: asyncio.TimerHandle | None = None
        self._over: Failed | None = None
        self.busy = 0
        """How many handlers' code has not ended."""

    def start(self, request: Request) -> None:
        """Starts a handler. Nothing is called back before this has returned."""
        self.busy += 1
        self._requests.add(request)
        if self._over is not None:
            self._loop.call_soon(self._end, request, self._over)
        elif request.handler.is_async:
            self._run_on_loop(request, request.handler.function, self._context.copy())
        else:
            name = f"{request.handler.route or 'catch-all'} {request.task.id}"
            try:
                self._threads.run(name, self._context.copy(), lambda: self._in_thread(request))
            except NoThreads:
                self._loop.call_soon(
                    self._end, request, Failed.because(FailureReason.OVERLOADED, "no thread can be started")
                )
        # near enough is soon enough: the deadlines of one second differ by microseconds, earlier or later
        if request.deadline < self._sweep_at - 2 * TIMER_RESOLUTION:
            self._sweep_by(request.deadline)

    def _run_on_loop(
        self, request: Request, function: Callable[[Task], Any], context: contextvars.Context
    ) -> None:
        request.work = asyncio.Task(
            self._on_loop(request, function), loop=self._loop, name="handler", context=context
        )

    async def _on_loop(self, request: Request, function: Callable[[Task], Any]) -> None:
        # A task that is cancelled before its first step would never come here: see `_answer`.
        try:
            if request.answered:
                self._free(request)
                return
            request.begun = now = time.monotonic()
            if now >= request.deadline:  # the loop, or the whole process, stood still
                self._end(request, Failed(_exceeded(request)))
                return
            if not self._begin(request):
                self._free(request)
                return
            request.phase = RUNNING
            CURRENT_TASK.set(request)
            try:
                outcome = outcome_of_result(await function(request.task))
            except BaseException as error:
                outcome = self._outcome_of_error(request, error)
            self._end(request, outcome)
        except BaseException as error:  # not the handler's: what of this run is done is anybody's guess
            fail(error, "an exception in the executor")

    def _end(self, request: Request, outcome: Outcome) -> None:
        try:
            self._free(request)  # first: what starts in the slot need not wait for this one's reply
        finally:
            if request.answered:
                _log.debug("route %r: task %s ended after its answer", request.handler.route, request.task.id)
            else:
                request.answered = True
                self._finish(request, outcome)

    def _free(self, request: Request) -> None:
        self._requests.discard(request)
        request.work = None  # whose context refers to the run
        self.busy -= 1
        self._freed(request)

    def _outcome_of_error(self, request: Request, error: BaseException) -> Outcome:
        outcome = outcome_of_exception(error)
        if not request.answered:
            # here, and not where it is answered: hooks of the application's own log see the handler's context
            request.told = True
            # such a hook may raise anything, which must not cost the answer
            with contextlib.suppress(BaseException):
                if isinstance(error, TerminateTask):
                    attempts.tell(outcome, request.labels(), logging.INFO)
                else:
                    attempts.tell_raised(error, describe(error), request.labels())
        return outcome

    # -- threads --------------------------------------------------------------------------------

    def _in_thread(self, request: Request) -> None:
        # The loop stores `answered`, then reads `code`: one of the two sees what the other did.
        request.phase = RUNNING
        request.begun = time.monotonic()
        if request.answered or not self._begin(request):
            self._post(self._landed, request, None)
            return
        CURRENT_TASK.set(request)
        try:
            result = request.handler.function(request.task)
            if inspect.isawaitable(result):  # a coroutine function in disguise
                request.phase = RunPhase.ENDED
                self._post(self._adopt, request, result, contextvars.copy_context())
                return
            outcome = outcome_of_result(result)
        except BaseException as error:
            outcome = self._outcome_of_error(request, error)
        request.phase = RunPhase.ENDED
        self._post(self._landed, request, outcome)

    def _left_thread(self, request: Request) -> None:
        if request.stuck is StuckReason.THREAD:
            self._threads.found()
        else:
            self._threads.done()

    def _landed(self, request: Request, outcome: Outcome | None) -> None:
        """A thread is done with a run; `outcome` is None if it was not run, being answered for or somebody else's."""
        self._left_thread(request)
        if outcome is None:
            self._free(request)
        else:
            self._end(request, outcome)

    def _adopt(self, request: Request, result: Awaitable[object], context: contextvars.Context) -> None:
        self._left_thread(request)
        if request.answered:
            if inspect.iscoroutine(result):
                result.close()  # it has not begun
            self._free(request)
            return
        request.phase = WAITING
        self._run_on_loop(request, lambda _: result, context)

    # -- deadlines ------------------------------------------------------------------------------

    def _sweep_by(self, moment: float) -> None:
        """The next look is not later than `moment`, unless that is too soon after this one."""
        now = time.monotonic()
        moment = max(moment, now + DEADLINE_SWEEP) + TIMER_RESOLUTION
        if moment < self._sweep_at:
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._sweep_at = moment
            self._sweeper = self._loop.call_later(moment - now, self._sweep)

    def _sweep(self) -> None:
        self._sweep_at, self._sweeper = _NEVER, None
        now = time.monotonic()
        waiting = [request for request in self._requests if request.stuck is None]
        for request in [request for request in waiting if request.deadline <= now]:
            if not request.answered:
                if request.phase is not RunPhase.ENDED:
                    self._answer(request, Failed(_exceeded(request)), now)
            elif now >= request.grace and request.phase is RUNNING:
                self._give_up(request, StuckReason.CANCELLATION)
        left = [
            request.grace if request.answered else request.deadline
            for request in waiting
            if request.stuck is None
        ]
        self._sweep_by(min(left, default=_NEVER))

    def _answer(self, request: Request, outcome: Outcome, now: float) -> None:
        """The answer first, then the cancellation. Code that has not begun sees by itself that it need not begin."""
        request.answered = True
        request.deadline = min(request.deadline, now)
        request.grace = now + self._kill_grace
        self._finish(request, outcome)
        if request.phase is not RUNNING:
            return
        if request.work is None:
            self._give_up(request, StuckReason.THREAD)
            return
        try:
            request.work.cancel()
        except Exception:  # of an awaitable that is the application's own
            _log.warning("route %r: cannot be cancelled", request.handler.route, exc_info=True)

    def _give_up(self, request: Request, reason: StuckReason) -> None:
        request.stuck = reason
        if reason is StuckReason.THREAD:
            self._threads.lost()
        self._stuck(request, reason)

    def has(self, index: int) -> bool:
        """Whether a run of that entry has no answer yet."""
        return any(request.index == index and not request.answered for request in self._requests)

    @property
    def broken(self) -> bool:
        """Whether a task on the loop has ended and nobody was told."""
        return any(request.work is not None and request.work.done() for request in self._requests)

    def running(self) -> dict[str, int]:
        """How many tasks of each route were started and have no answer yet."""
        return Counter(request.route.handler.route for request in self._requests if not request.answered)

    def cancel_all(self, text: str) -> None:
        """The time to drain is over: whatever runs is answered with `text` and cancelled.

        So is what is started later: the slots that become free here are offered to what waits.
        """
        self._over = Failed(text)
        now = time.monotonic()
        for request in list(self._requests):
            if not request.answered:
                self._answer(request, self._over, now)
        self._sweep_by(now + self._kill_grace)


def _exceeded(request: Request) -> str:
    """Says which limit it was. `started` is the time of receipt, from which both are counted."""
    took = request.deadline - request.started
    timeout = request.handler.timeout
    whose = (
        "the route's timeout"
        if timeout is not None and took > timeout - DEADLINE_SWEEP
        else "the task's deadline"
    )
    what = f"the handler of route {request.handler.route!r}"
    if request.phase is WAITING:
        return FailureReason.DEADLINE_EXCEEDED.text(f"{what} had not begun after {took:.3g} s ({whose})")
    return FailureReason.DEADLINE_EXCEEDED.text(f"{what} was still running after {took:.3g} s ({whose})")
