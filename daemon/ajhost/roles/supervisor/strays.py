"""Processes that dead workers left: their handlers' children, in sessions of their own."""

from __future__ import annotations

import asyncio
import logging

from ajhost.adapters.linux import child_processes
from ajhost.core.timings import CHECK_INTERVAL
from ajhost.roles.supervisor.workers import WorkerPool

_log = logging.getLogger("ajhost.supervisor")


class Strays:
    """Ends them, beside the workers and templates of `pool`, which are left alone."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool, self._reaper = pool, child_processes.ChildReaper()

    def worker_died(self) -> None:
        """From now on, for a moment, `end` ends what it has left."""
        self._reaper.hunt()

    def template_died(self) -> None:
        """What its imports had started, its workers may need."""
        self._reaper.spare(self._pool.pids())

    def end(self) -> bool:
        """Ends what is found. Call it at every tick; whether a worker has died a moment ago."""
        if ended := self._reaper.end_strays(self._pool.pids(), self._pool.members):
            _log.warning("%d processes that a dead worker had left: SIGKILL", len(ended))
        return self._reaper.hunting

    def reap(self) -> None:
        """Reaps those that have ended. Call it about once a second."""
        self._reaper.reap(self._pool.pids())

    async def end_all(self) -> None:
        """The last worker is gone: returns when nothing of theirs is left, or nothing that can be ended."""
        while self.end() and child_processes.children() - self._pool.pids():
            await asyncio.sleep(CHECK_INTERVAL)
            self.reap()
