"""Enforces the deadlines of attempts: answers `deadline exceeded:` with whose limit that was, logs what the code does,
cancels it, and gives up code that runs on. `core/deadline_budget.py` computes the deadline; what waits in the shared
queue expires in `roles/shared_queue/producer.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection

from ajhost.core.report_throttle import StacksGate
from ajhost.core.timings import DEADLINE_SWEEP, TIMER_RESOLUTION
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.worker.request import ANSWERED, RUNNING, WAITING, Attempt, ExecutorEvents, StuckReason
from ajhost.roles.worker.stacks import stacks_of
from ajhost.roles.worker.thread_pool import Threads

_log = logging.getLogger("ajhost.worker")
_NEVER = float("inf")


class Deadlines:
    """The deadlines of the executor's `attempts`, with one timer for all of them.

    Logs the stack of a task that still runs at its deadline, as often as `stacks` allows.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        attempts: Collection[Attempt],
        kill_grace: float,
        threads: Threads,
        events: ExecutorEvents,
        stacks: StacksGate | None,
    ) -> None:
        self._loop = loop
        self._attempts = attempts
        self._kill_grace = kill_grace
        self._threads, self._events, self._stacks = threads, events, stacks
        self._timer: asyncio.TimerHandle | None = None
        self._sweep_at = _NEVER
        self.soon_enough = _NEVER
        """The first deadline for which the next sweep is soon enough: those of one second differ by microseconds."""
        self.stuck = 0
        """How many times code ran on past its deadline."""

    def sweep_by(self, moment: float) -> None:
        """Sets the timer so that the next sweep is at `moment` or before, but not within `DEADLINE_SWEEP` from now."""
        now = time.monotonic()
        moment = max(moment, now + DEADLINE_SWEEP) + TIMER_RESOLUTION
        if moment < self._sweep_at:
            if self._timer is not None:
                self._timer.cancel()
            self._sweep_at, self.soon_enough = moment, moment - 2 * TIMER_RESOLUTION
            self._timer = self._loop.call_later(moment - now, self._sweep)

    def _sweep(self) -> None:
        self._sweep_at, self.soon_enough, self._timer = _NEVER, _NEVER, None
        now = time.monotonic()
        going = [attempt for attempt in self._attempts if attempt.stuck is None]
        for attempt in [attempt for attempt in going if attempt.deadline <= now]:
            if attempt.phase is WAITING or attempt.phase is RUNNING:
                self._end(attempt, Failed(exceeded(attempt)), now, tell=True)
            elif attempt.phase is ANSWERED and now >= attempt.grace:
                in_thread = attempt.work is None
                self.give_up(attempt, StuckReason.THREAD if in_thread else StuckReason.CANCELLATION)
        left = (a.grace if a.phase is ANSWERED else a.deadline for a in going if a.stuck is None)
        self.sweep_by(min(left, default=_NEVER))

    def answer_and_cancel(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        """Answers before the deadline (an operator cancels the task, or the drain must end), then cancels."""
        self._end(attempt, outcome, now, tell=False)
        self.sweep_by(now + self._kill_grace)

    def _end(self, attempt: Attempt, outcome: Outcome, now: float, *, tell: bool) -> None:
        """Answers, then cancels. Code that has not begun needs no cancellation: `begin` returns False to it.

        `tell`: log its stack between the two, if `stacks` allows it.
        """
        attempt.deadline = min(attempt.deadline, now)
        if attempt.answer(outcome) is not RUNNING:
            return
        attempt.grace = now + self._kill_grace
        if tell and self._stacks is not None and self._stacks.take(attempt.handler.route, time.monotonic_ns()):
            self._loop.call_soon(self._tell_and_stop, attempt)  # when the answer has left
        else:
            self._stop(attempt)

    def _tell_and_stop(self, attempt: Attempt) -> None:
        if attempt not in self._attempts:
            return
        # source files, and the reprs of futures, are the application's
        with contextlib.suppress(Exception):
            text, extra = stacks_of([attempt]), attempt.labels().extras()
            _log.warning("route %r: at its deadline, %s", attempt.handler.route, text, extra=extra)
        self._stop(attempt)

    def _stop(self, attempt: Attempt) -> None:
        if attempt.work is None:
            self.give_up(attempt, StuckReason.THREAD)
            return
        try:
            attempt.work.cancel()
        except Exception:  # of an awaitable that is the application's own
            _log.warning("route %r: cannot be cancelled", attempt.handler.route, exc_info=True)

    def give_up(self, attempt: Attempt, reason: StuckReason) -> None:
        """Counts code that does not end as stuck. It is answered, but its slot is lost until it ends."""
        attempt.stuck = reason
        if reason is StuckReason.THREAD:
            self._threads.lost()
        self.stuck += 1
        route, extra = attempt.handler.route, attempt.labels().extras()
        _log.error("%s of route %r runs on past its deadline", reason.value, route, extra=extra)
        self._events.code_stuck(reason)


def exceeded(attempt: Attempt) -> str:
    """Returns the text of the answer at a deadline, which names the limit. All limits count from the receipt."""
    took = attempt.deadline - attempt.received
    timeout = attempt.handler.timeout
    if timeout is not None and took > timeout - DEADLINE_SWEEP:
        whose = "the route's timeout"
    elif attempt.record.without_deadline:
        whose = "workers.default_timeout, as the request has no deadline"
    else:
        whose = "the task's deadline"
    state = "had not begun" if attempt.phase is WAITING else "was still running"
    text = f"the handler of route {attempt.handler.route!r} {state} after {took:.3g} s ({whose})"
    return FailureReason.DEADLINE_EXCEEDED.text(text)
