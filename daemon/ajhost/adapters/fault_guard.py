"""Keeps periodic work going: an exception of a job is logged and counted, and the job runs again at its next time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType

from ajhost.core.timings import LOG_REPEAT


class FaultGuard:
    """`with guard("heartbeat"): ...` ends normally whatever is raised inside, except SystemExit and KeyboardInterrupt.

    A job that fails at every tick would fill the log: the first failure is logged with its traceback, those of the next
    30 s are counted and told together.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.failures: Counter[str] = Counter()
        """How often each job has failed since the start."""
        self._log = log
        self._told: dict[str, tuple[float, int]] = {}
        """When each job was last reported, and its failures up to then."""

    def __call__(self, job: str) -> _Job:
        """Runs what is inside as the job of that name."""
        return _Job(self, job)

    def failed(self, job: str, error: BaseException) -> None:
        """Counts a failure, and logs it unless one of this job was logged a short while ago."""
        self.failures[job] += 1
        if job not in self._told:
            self._tell(job)
            self._log.error("%s failed, and is done again: %r", job, error, exc_info=error)

    def report(self) -> None:
        """Logs how often each job has failed since it was last logged. Call it about once a second."""
        now = time.monotonic()
        for job, (at, count) in list(self._told.items()):
            if now - at < LOG_REPEAT:
                continue
            if more := self.failures[job] - count:
                self._log.error("%s failed %d more times in %.0f s", job, more, now - at)
                self._tell(job)
            else:
                del self._told[job]

    def _tell(self, job: str) -> None:
        self._told[job] = time.monotonic(), self.failures[job]


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
