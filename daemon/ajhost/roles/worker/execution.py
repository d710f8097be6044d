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

from ajhost.adapters.log_record import CURRENT_TASK
from ajhost.adapters.thread_calls import ThreadCalls
from ajhost.api import Task, TerminateTask
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.roles.worker.outcomes import describe, outcome_of_exception, outcome_of_result
from ajhost.roles.worker.run import RUNS, WAITS, Code, Run, StuckReason
from ajhost.roles.worker.threads import NoThreads, Threads

_log = logging.getLogger("ajhost.worker")
_SWEEP = 0.02
"""Least seconds between two looks for deadlines. A worker runs few tasks at once, so looking at all of them when the
first is due costs less than a timer or a heap entry for each."""
_TICK = 0.001
"""Seconds to which the loop's timers are exact: a look that comes too early comes again, and one that is due a little
after a deadline is soon enough for it."""
_NEVER = float("inf")


class Execution:
    """Runs handlers on the loop and in threads.

    For each `start`, `begin(run)` is called immediately before the handler's first instruction, by the thread that
    executes it; if it says False, the handler is not run, nor is it finished. `finish(run, outcome)` is called exactly
    once: when the handler ends, or first thing at its deadline, and only then is it cancelled. `freed(run)` is called
    exactly once, when its code has really ended and the slot is free. `stuck(run, reason)` is called once for code that
    runs on: a thread at its deadline, a task that swallows its cancellation `kill_grace` seconds after it. A handler
    whose deadline comes before its code began is not run at all.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        begin: Callable[[Run], bool],
        finish: Callable[[Run, Outcome], None],
        freed: Callable[[Run], None],
        stuck: Callable[[Run, StuckReason], None],
        kill_grace: float,
        threads: int,
        at_once: Callable[[Callable[[], None]], None],
    ) -> None:
        """`at_once(work)` has to call `work`, which finishes runs of threads, and may send their replies after it."""
        self._loop = loop
        self._context = contextvars.copy_context()
        """Where all handlers begin: most are started when another ends, and must not see what that left in its own."""
        self._begin, self._finish, self._freed, self._stuck = begin, finish, freed, stuck
        self._kill_grace = kill_grace
        self._threads = Threads(threads)
        self._post = ThreadCalls(loop, at_once).post
        self._runs: set[Run] = set()
        self._sweep_at = _NEVER
        self._sweeper: asyncio.TimerHandle | None = None
        self._over: Failed | None = None
        self.busy = 0
        """How many handlers' code has not ended."""

    def start(self, run: Run) -> None:
        """Starts a handler. Nothing is called back before this has returned."""
        self.busy += 1
        self._runs.add(run)
        if self._over is not None:
            self._loop.call_soon(self._end, run, self._over)
        elif run.handler.is_async:
            self._run_on_loop(run, run.handler.function, self._context.copy())
        else:
            name = f"{run.handler.route or 'catch-all'} {run.task.id}"
            try:
                self._threads.run(name, self._context.copy(), lambda: self._in_thread(run))
            except NoThreads:
                self._loop.call_soon(self._end, run, Failed("overloaded: no thread can be started"))
        # near enough is soon enough: the deadlines of one second differ by microseconds, earlier or later
        if run.deadline < self._sweep_at - 2 * _TICK:
            self._sweep_by(run.deadline)

    def _run_on_loop(self, run: Run, function: Callable[[Task], Any], context: contextvars.Context) -> None:
        run.work = asyncio.Task(
            self._on_loop(run, function), loop=self._loop, name="handler", context=context
        )

    async def _on_loop(self, run: Run, function: Callable[[Task], Any]) -> None:
        # A task that is cancelled before its first step would never come here: see `_answer`.
        if run.answered:
            self._free(run)
            return
        if time.monotonic() >= run.deadline:  # the loop, or the whole process, stood still
            self._end(run, Failed(_exceeded(run)))
            return
        if not self._begin(run):
            self._free(run)
            return
        run.code = RUNS
        CURRENT_TASK.set(run)
        try:
            outcome = outcome_of_result(await function(run.task))
        except BaseException as error:
            outcome = self._judge(run, error)
        self._end(run, outcome)

    def _end(self, run: Run, outcome: Outcome) -> None:
        try:
            self._free(run)  # first: what starts in the slot need not wait for this one's reply
        finally:
            if run.answered:
                _log.debug("route %r: task %s ended after its answer", run.handler.route, run.task.id)
            else:
                run.answered = True
                self._finish(run, outcome)

    def _free(self, run: Run) -> None:
        self._runs.discard(run)
        run.work = None  # whose context refers to the run
        self.busy -= 1
        self._freed(run)

    def _judge(self, run: Run, error: BaseException) -> Outcome:
        if not run.answered and not isinstance(error, TerminateTask):
            # a log handler of the application's own may raise anything, which must not cost the answer
            with contextlib.suppress(BaseException):
                _log.warning(
                    "route %r: %s",
                    run.handler.route,
                    describe(error),
                    exc_info=error,
                    extra=run.labels().extras(),
                )
        return outcome_of_exception(error)

    # -- threads --------------------------------------------------------------------------------

    def _in_thread(self, run: Run) -> None:
        # The loop stores `answered`, then reads `code`: one of the two sees what the other did.
        run.code = RUNS
        if run.answered or not self._begin(run):
            self._post(self._landed, run, None)
            return
        CURRENT_TASK.set(run)
        try:
            result = run.handler.function(run.task)
            if inspect.isawaitable(result):  # a coroutine function in disguise
                run.code = Code.ENDED
                self._post(self._adopt, run, result, contextvars.copy_context())
                return
            outcome = outcome_of_result(result)
        except BaseException as error:
            outcome = self._judge(run, error)
        run.code = Code.ENDED
        self._post(self._landed, run, outcome)

    def _left_thread(self, run: Run) -> None:
        if run.stuck is StuckReason.THREAD:
            self._threads.found()
        else:
            self._threads.done()

    def _landed(self, run: Run, outcome: Outcome | None) -> None:
        """A thread is done with a run; `outcome` is None if it was not run, being answered for or somebody else's."""
        self._left_thread(run)
        if outcome is None:
            self._free(run)
        else:
            self._end(run, outcome)

    def _adopt(self, run: Run, result: Awaitable[object], context: contextvars.Context) -> None:
        self._left_thread(run)
        if run.answered:
            if inspect.iscoroutine(result):
                result.close()  # it has not begun
            self._free(run)
            return
        run.code = WAITS
        self._run_on_loop(run, lambda _: result, context)

    # -- deadlines ------------------------------------------------------------------------------

    def _sweep_by(self, moment: float) -> None:
        """The next look is not later than `moment`, unless that is too soon after this one."""
        now = time.monotonic()
        moment = max(moment, now + _SWEEP) + _TICK
        if moment < self._sweep_at:
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._sweep_at = moment
            self._sweeper = self._loop.call_later(moment - now, self._sweep)

    def _sweep(self) -> None:
        self._sweep_at, self._sweeper = _NEVER, None
        now = time.monotonic()
        waiting = [run for run in self._runs if run.stuck is None]
        for run in [run for run in waiting if run.deadline <= now]:
            if not run.answered:
                if run.code is not Code.ENDED:
                    self._answer(run, Failed(_exceeded(run)), now)
            elif now >= run.grace and run.code is RUNS:
                self._give_up(run, StuckReason.CANCELLATION)
        left = [run.grace if run.answered else run.deadline for run in waiting if run.stuck is None]
        self._sweep_by(min(left, default=_NEVER))

    def _answer(self, run: Run, outcome: Outcome, now: float) -> None:
        """The answer first, then the cancellation. Code that has not begun sees by itself that it need not begin."""
        run.answered = True
        run.deadline = min(run.deadline, now)
        run.grace = now + self._kill_grace
        self._finish(run, outcome)
        if run.code is not RUNS:
            return
        if run.work is None:
            self._give_up(run, StuckReason.THREAD)
            return
        try:
            run.work.cancel()
        except Exception:  # of an awaitable that is the application's own
            _log.warning("route %r: cannot be cancelled", run.handler.route, exc_info=True)

    def _give_up(self, run: Run, reason: StuckReason) -> None:
        run.stuck = reason
        if reason is StuckReason.THREAD:
            self._threads.lost()
        self._stuck(run, reason)

    def running(self) -> dict[str, int]:
        """How many tasks of each route were started and have no answer yet."""
        return Counter(run.route.handler.route for run in self._runs if not run.answered)

    def cancel_all(self, text: str) -> None:
        """The time to drain is over: whatever runs is answered with `text` and cancelled.

        So is what is started later: the slots that become free here are offered to what waits.
        """
        self._over = Failed(text)
        now = time.monotonic()
        for run in list(self._runs):
            if not run.answered:
                self._answer(run, self._over, now)
        self._sweep_by(now + self._kill_grace)


def _exceeded(run: Run) -> str:
    """Says which limit it was. `started` is the time of receipt, from which both are counted."""
    took = run.deadline - run.started
    timeout = run.handler.timeout
    whose = (
        "the route's timeout" if timeout is not None and took > timeout - _SWEEP else "the task's deadline"
    )
    what = f"the handler of route {run.handler.route!r}"
    if run.code is WAITS:
        return f"deadline exceeded: {what} had not begun after {took:.3g} s ({whose})"
    return f"deadline exceeded: {what} was still running after {took:.3g} s ({whose})"
