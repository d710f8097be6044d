"""The outcome for a task that ran when its worker died: `worker died: ...` and another try, or none once it has killed
`max_crashes` workers. They are counted in memory: the supervisor's next start counts anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ajhost.ledger.view import Entry
from ajhost.protocol.outcome import Failed, Terminated
from ajhost.protocol.reasons import FailureReason

TASKS_REMEMBERED = 10_000
"""How many tasks are counted at once: the last ones that have killed a worker."""


class PoisonTasks:
    """Counts the workers that died while they ran a task. `limits`: each route's `max_crashes`; 0: none."""

    def __init__(self, limits: Iterable[tuple[str, int]]) -> None:
        self._crashes: OrderedDict[str, int] = OrderedDict()
        self.apply_generation(limits)

    def apply_generation(self, limits: Iterable[tuple[str, int]]) -> None:
        """Takes a new generation's limits and keeps the counts."""
        self._limits = sorted(limits, key=lambda limit: -len(limit[0]))

    def outcome(self, entry: Entry, how: str) -> Failed | Terminated:
        """Counts a death and returns the outcome for an entry that was STARTED then. `how`: the death in words."""
        text = FailureReason.WORKER_DIED.text(f"{how} while the task was running")
        limit = next((limit for route, limit in self._limits if entry.type.startswith(route)), 0)
        if not limit or not entry.id:
            return Failed(text)
        crashes = self._crashes[entry.id] = self._crashes.pop(entry.id, 0) + 1
        if len(self._crashes) > TASKS_REMEMBERED:
            self._crashes.popitem(last=False)
        if crashes < limit:
            return Failed(text)
        del self._crashes[entry.id]
        return Terminated(f"{text}; it has killed {crashes} workers")
