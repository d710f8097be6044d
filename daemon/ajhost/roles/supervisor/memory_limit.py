"""Which workers have more memory than `workers.max_memory`: they are replaced."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import proc
from ajhost.core.timings import MEMORY_CHECK_INTERVAL
from ajhost.ledger.layout import Phase, Word
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")


class MemoryLimit:
    """Compares a worker's resident bytes with the limit: before its first task, then every now and then."""

    def __init__(self, guard: FaultGuard) -> None:
        self._guard = guard
        self._at_start: dict[int, int] = {}
        """Resident bytes before the first task, by serial."""
        self._due_at = 0.0
        self._told_generation = 0

    def outgrown(
        self, living: Sequence[WorkerProcess], limit: int, now: float
    ) -> Iterator[tuple[WorkerProcess, str]]:
        """Those to be replaced, and why. Call it at every tick. `limit` 0: there is none."""
        if not limit:
            return
        if due := now >= self._due_at:
            self._due_at = now + MEMORY_CHECK_INTERVAL
        for serial in self._at_start.keys() - {worker.serial for worker in living}:
            del self._at_start[serial]
        for worker in living:
            resident = 0
            with self._guard("weighing a worker"):
                resident = self._weigh(worker, limit, due)
            if resident > limit:
                yield worker, f"{resident >> 20} MiB resident, the limit is {limit >> 20} MiB"

    def _weigh(self, worker: WorkerProcess, limit: int, due: bool) -> int:
        """Resident bytes; 0 of a worker that is not looked at now, or of which a new one would be as large."""
        if not self._at_start.get(worker.serial) and worker.ledger.words[Word.PHASE] == Phase.SERVING:
            self._at_start[worker.serial] = resident = worker.ledger.words[Word.SIZE_AT_START]
            self._compare_size_at_start(worker, resident, limit)
        if not due or self._at_start.get(worker.serial, 0) > limit:
            return 0
        try:
            return proc.resident_bytes(worker.pid)
        except OSError:
            return 0  # it is about to be found dead, or this process has no descriptor left to look

    def _compare_size_at_start(self, worker: WorkerProcess, resident: int, limit: int) -> None:
        """Tells, once for each generation, of a limit that no worker can keep."""
        if resident <= limit or worker.generation <= self._told_generation:
            return
        self._told_generation = worker.generation
        _log.error(
            "workers.max_memory: %d MiB is less than the %d MiB that a worker has before its first task: no worker is"
            " replaced for its memory",
            limit >> 20,
            resident >> 20,
        )
