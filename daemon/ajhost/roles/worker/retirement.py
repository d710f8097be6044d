"""Why a worker retires: it asks the supervisor for another in its place, once, and is told to leave when that serves.

It has started its `max_tasks`, has code that cannot be stopped, got a SIGTERM, or has lost what its lifespan had made.
"""

from __future__ import annotations

from collections.abc import Callable

from ajhost.roles.messages import RecycleRequest
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.supervisor_gone import Orphaned

STUCK = "a handler that cannot be stopped"
TERMINATED = "SIGTERM"
LIFESPAN_ENDED = "its lifespan has ended"


class Retirement:
    """`limits_tasks`: whether `max_tasks` is not 0."""

    def __init__(
        self, executor: Executor, max_tasks: int, orphaned: Orphaned, tell: Callable[[RecycleRequest], None]
    ) -> None:
        self._executor, self._slots = executor, executor.capacity
        self._max_tasks = self._left = max_tasks
        self._orphaned, self._tell = orphaned, tell
        self.limits_tasks, self._asked = max_tasks > 0, False

    def started(self) -> None:
        """One of the tasks that may start here does so."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._executor.capacity = 0  # what comes from now on is for others
                self.ask(f"{self._max_tasks} tasks served")

    def lift_limit(self) -> None:
        """The whole host stops: nobody comes after this worker, so it starts whatever is left."""
        self._left, self._executor.capacity = 0, self._slots

    def ask(self, why: str) -> None:
        """Asks for another worker, if there is somebody to ask."""
        if not self._asked:
            self._asked = True
            self._orphaned.grace = 0.0
            self._tell(RecycleRequest(why))
        if self._orphaned.alone:
            self._orphaned.ending.leave_and_finish()
