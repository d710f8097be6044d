"""Decides that a worker has grown beyond `workers.max_memory` and is to be replaced: by its resident bytes, every
`MEMORY_CHECK_INTERVAL`. One that has more before its first task is told of in the log, once for each generation, and
not replaced for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import proc
from ajhost.core.timings import MEMORY_CHECK_INTERVAL
from ajhost.ledger.layout import Phase, Word
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")


class MemoryLimit:
    def __init__(self, guard: FaultGuard) -> None:
        self._guard = guard
        self._at_start: dict[int, int] = {}
        """Resident bytes before the first task, by serial."""
        self._due_at = 0.0
        self._told_generation = 0

    def outgrown(self, workers: Sequence[WorkerProcess], limit: int) -> Iterator[tuple[WorkerProcess, str]]:
        """Yields the workers to replace, and why. Call it at every tick. `limit`: in bytes; 0: none."""
        if not limit:
            return
        if due := (now := time.monotonic()) >= self._due_at:
            self._due_at = now + MEMORY_CHECK_INTERVAL
        living = [worker for worker in workers if worker.pid and not worker.dead]
        for serial in self._at_start.keys() - {worker.serial for worker in living}:
            del self._at_start[serial]
        for worker in living:
            resident = 0
            with self._guard("weighing a worker"):
                resident = self._weigh(worker, limit, due)
            if resident > limit:
                yield worker, f"{resident >> 20} MiB resident, the limit is {limit >> 20} MiB"

    def _weigh(self, worker: WorkerProcess, limit: int, due: bool) -> int:
        """Returns resident bytes; 0 if no check is due, or if it was over the limit when new: the next would be too."""
        if not self._at_start.get(worker.serial) and worker.ledger.words[Word.PHASE] == Phase.SERVING:
            self._at_start[worker.serial] = resident = worker.ledger.words[Word.SIZE_AT_START]
            self._compare_size_at_start(worker, resident, limit)
        if not due or self._at_start.get(worker.serial, 0) > limit:
            return 0
        try:
            return proc.resident_bytes(worker.pid)
        except OSError:
            return 0  # it has just died, or this process has no descriptor left to read with

    def _compare_size_at_start(self, worker: WorkerProcess, resident: int, limit: int) -> None:
        """Logs, once for each generation, that the limit is below what a worker has before its first task."""
        if resident <= limit or worker.generation <= self._told_generation:
            return
        self._told_generation = worker.generation
        _log.error(
            "workers.max_memory: %d MiB is less than the %d MiB that a worker has before its first task: no worker is"
            " replaced for its memory",
            limit >> 20,
            resident >> 20,
        )
