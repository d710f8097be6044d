"""Keeps periodic work going: an exception of a job is logged and counted, and the job runs again at its next time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType

from ajhost.core.throttle import Throttle
from ajhost.core.timings import LOG_REPEAT


class FaultGuard:
    """`with guard("heartbeat"): ...` ends normally whatever is raised inside, except SystemExit and KeyboardInterrupt.

    A job that fails at every tick would fill the log: the first failure is logged with its traceback, those of the next
    30 s are counted and told together.
    """

    def __init__(self, log: logging.Logger, pause: float = LOG_REPEAT) -> None:
        self.failures: Counter[str] = Counter()
        """How often each job has failed since the start."""
        self._log = log
        self._throttle = Throttle[str](pause)

    def __call__(self, job: str) -> _Job:
        """Runs what is inside as the job of that name."""
        return _Job(self, job)

    def failed(self, job: str, error: BaseException) -> None:
        """Counts a failure, and logs it unless one of this job was logged a short while ago."""
        self.failures[job] += 1
        if self._throttle.count(job, time.monotonic(), job):
            self._log.error("%s failed, and is done again: %r", job, error, exc_info=error)

    def report(self) -> None:
        """Logs how often each job has failed since it was last logged. Call it about once a second."""
        for job, count, seconds in self._throttle.due(time.monotonic()):
            self._log.error("%s failed %d more times in %.0f s", job, count, seconds)


class _Job:
    """One run of a job."""

    __slots__ = ("_guard", "_name")

    def __init__(self, guard: FaultGuard, name: str) -> None:
        self._guard, self._name = guard, name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._guard.failed(self._name, error)
        return True
