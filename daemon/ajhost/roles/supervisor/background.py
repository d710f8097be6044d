"""What the supervisor does beside everything else: forks, recoveries, subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from ajhost.adapters.fault_guard import FaultGuard


class Background:
    """Keeps hold of tasks, and counts those that fail."""

    def __init__(self, guard: FaultGuard) -> None:
        self._guard = guard
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Runs something beside everything else."""
        task = asyncio.create_task(work, name=getattr(work, "__qualname__", ""))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._guard.failed(task.get_name(), error)
