"""Processes that dead workers left: their handlers' children, in sessions of their own."""

from __future__ import annotations

import asyncio
import logging

from ajhost.adapters.linux import proc
from ajhost.adapters.linux.child_reaper import GENERATION_MARK, ChildReaper
from ajhost.core.timings import CHECK_INTERVAL
from ajhost.roles.supervisor.template_process import TemplateProcess
from ajhost.roles.supervisor.worker_pool import WorkerPool

_log = logging.getLogger("ajhost.supervisor")


class StrayProcesses:
    """Ends them, beside the workers and templates of `pool`, which are left alone."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool, self._reaper = pool, ChildReaper()

    def owner_died(self) -> None:
        """A worker has died, or a template: from now on, for a moment, `end` ends what it has left."""
        self._reaper.hunt()

    def _ours(self) -> tuple[set[int], set[int]]:
        """The processes that somebody here waits for, and the marks of all that are to live.

        Those of each worker; and of each generation that has one, which may need what its imports have started.
        """
        workers, generations = self._pool.workers, self._pool.generations
        numbers = {*generations, *(worker.generation for worker in workers.values())}
        marks = {*workers, *(GENERATION_MARK + number for number in numbers)}
        return {worker.pid for worker in workers.values()} | TemplateProcess.living, marks

    def end(self) -> bool:
        """Ends what is found. Call it at every tick; whether a worker has died a moment ago."""
        if ended := self._reaper.end_strays(*self._ours()):
            _log.warning("%d processes that a dead worker had left: SIGKILL", len(ended))
        return self._reaper.hunting

    def reap(self) -> None:
        """Reaps those that have ended. Call it about once a second."""
        self._reaper.reap(*self._ours())

    async def end_all(self) -> None:
        """The host stops: returns when nothing of its workers and templates is left, or nothing that can be ended."""
        self._reaper.hunt()
        while self.end() and proc.children():
            await asyncio.sleep(CHECK_INTERVAL)
            self.reap()
