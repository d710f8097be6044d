"""What a task is doing that is still running at its deadline goes to the log, once for each route and minute."""

from __future__ import annotations

import logging
import time

from ajhost.core.stacks_gate import StacksGate
from ajhost.roles.worker.request import Attempt
from ajhost.roles.worker.stacks import stacks_of

_log = logging.getLogger("ajhost.worker")


class DeadlineStacks:
    """Logs what a task is doing that is still running at its deadline, as often as `gate` lets it."""

    def __init__(self, gate: StacksGate) -> None:
        self._gate = gate

    def wanted(self, attempt: Attempt) -> bool:
        """Whether to `tell` of this one. If so, no other of the route is told of within a minute."""
        return self._gate.take(attempt.handler.route, time.monotonic_ns())

    @staticmethod
    def tell(attempt: Attempt, thread: str) -> None:
        """Logs it. `thread`: the name of the thread that runs it, if one does."""
        labels = attempt.labels()
        text = stacks_of([attempt], lambda _: thread)
        _log.warning("route %r: at its deadline, %s", labels.route, text, extra=labels.extras())
