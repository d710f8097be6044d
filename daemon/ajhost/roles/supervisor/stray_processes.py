"""Ends the processes that dead workers and templates left: children of handlers or imports, in their own sessions."""

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
    """The hunt for processes that dead workers and templates left. It spares the workers and templates of `pool`."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool, self._reaper = pool, ChildReaper()

    def owner_died(self) -> None:
        """Has `end` look, for `STRAY_HUNT` seconds, for what a worker or template that has just died left."""
        self._reaper.hunt()

    def _ours(self) -> tuple[set[int], set[int]]:
        """Returns the pids that the supervisor itself reaps, and the marks of processes that are to live.

        Those of the workers, and of each generation that has one: it may need what its imports have started.
        """
        workers, generations = self._pool.workers, self._pool.generations
        numbers = {*generations, *(worker.generation for worker in workers.values())}
        marks = {*workers, *(GENERATION_MARK + number for number in numbers)}
        return {worker.pid for worker in workers.values()} | TemplateProcess.living, marks

    def end(self) -> bool:
        """Ends what it finds. Call it at every tick. Returns whether it looks for more."""
        if ended := self._reaper.end_strays(*self._ours()):
            _log.warning("%d processes that a dead worker had left: SIGKILL", len(ended))
        return self._reaper.hunting

    def reap(self) -> None:
        """Reaps processes that have ended. Call it about once a second."""
        self._reaper.reap(*self._ours())

    async def end_all(self) -> None:
        """Ends all that workers and templates left: the host stops. Returns when nothing is left that can be ended."""
        self._reaper.hunt()
        while self.end() and proc.children():
            await asyncio.sleep(CHECK_INTERVAL)
            self.reap()
