"""Keeps the supervisor working: an exception of a job is logged, and counted for a metric, and the other jobs go on."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

from ajhost.core.report_throttle import Throttle
from ajhost.core.timings import LOG_REPEAT

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class FaultGuard:
    """`with guard("heartbeat"): ...` ends normally whatever is raised inside, except SystemExit and KeyboardInterrupt.

    A job that fails at every tick would fill the log: the first failure is logged with its traceback, those of the next
    30 s are counted and logged together.
    """

    def __init__(self, log: logging.Logger, pause: float = LOG_REPEAT) -> None:
        self.failures: Counter[str] = Counter()
        """How often each job has failed since the start."""
        self._log = log
        self._throttle: Throttle[str] = Throttle(pause)

    @contextlib.contextmanager
    def __call__(self, job: str) -> Iterator[None]:
        """Runs the block as the job of that name."""
        try:
            yield
        except Exception as error:
            self.failed(job, error)

    def failed(self, job: str, error: BaseException) -> None:
        """Counts a failure, and logs it unless one of this job was logged a short while ago."""
        self.failures[job] += 1
        if self._throttle.count(job, time.monotonic(), job):
            self._log.error("%s failed, and is done again: %r", job, error, exc_info=error)

    def report(self) -> None:
        """Logs how often each job has failed since it was last logged. Call it about once a second."""
        for job, count, seconds in self._throttle.due(time.monotonic()):
            self._log.error("%s failed %d more times in %.0f s", job, count, seconds)

    def of_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Serves as the event loop's exception handler.

        While a listening socket finds no descriptor for a new connection, asyncio reports that 100 times a second.
        """
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR:
            self.failed("taking connections", error)
        else:
            loop.default_exception_handler(context)


class Background:
    """Concurrent tasks (forks, recoveries, subscriptions): keeps references to them, and counts their failures."""

    def __init__(self, guard: FaultGuard) -> None:
        self._guard = guard
        self.tasks: set[asyncio.Task[object]] = set()

    def spawn(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.create_task(work, name=getattr(work, "__qualname__", ""))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._guard.failed(task.get_name(), error)
