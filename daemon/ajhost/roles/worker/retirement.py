"""Asks the supervisor, once, to replace this worker, which leaves when the replacement serves. Counts `max_tasks`;
other reasons are found by `deadline_enforcement.py` (code that cannot be stopped), `signals.py` and `roles/lifespan.py`
(its early end). The supervisor itself watches the memory (`roles/supervisor/memory_limit.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from ajhost.roles.messages import RecycleRequest
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.supervisor_gone import Ending

STUCK = "a handler that cannot be stopped"
TERMINATED = "SIGTERM"
LIFESPAN_ENDED = "its lifespan has ended"


class Retirement:
    """The retirement of a worker. `limits_tasks`: whether `max_tasks` is not 0."""

    def __init__(
        self, executor: Executor, max_tasks: int, ending: Ending, tell: Callable[[RecycleRequest], None]
    ) -> None:
        self._executor, self._slots = executor, executor.capacity
        self._max_tasks = self._left = max_tasks
        self._ending, self._tell = ending, tell
        self.limits_tasks, self._asked = max_tasks > 0, False

    def started(self) -> None:
        """Counts a task that starts, and retires the worker at the last one of `max_tasks`."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._executor.capacity = 0  # later requests are enqueued for other workers
                self.ask(f"{self._max_tasks} tasks served")

    def lift_limit(self) -> None:
        """Lifts `max_tasks`, since the whole host stops: no other worker would start what is left."""
        self._left, self._executor.capacity = 0, self._slots

    def ask(self, why: str) -> None:
        """Asks the supervisor for another worker. If the supervisor is dead, this worker leaves and finishes."""
        if not self._asked:
            self._asked = True
            self._ending.grace = 0.0
            self._tell(RecycleRequest(why))
        if self._ending.alone:
            self._ending.leave_and_finish()
