"""The supervisor once a NATS server has let it in: what it does at each tick, after which systemd's watchdog is told of
life only if no part failed; what it does when a worker dies or hangs; when the host is ready for the first time.
Restores ledgers that somebody has truncated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from ajhost.adapters.linux.stray_processes import StrayProcesses
from ajhost.adapters.logs import log_outputs
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.fleet import HangEnded, Hung, Tick
from ajhost.core.poison_tasks import PoisonTasks
from ajhost.core.timings import CHECK_INTERVAL, CHECK_INTERVAL_CALM, STATUS_INTERVAL
from ajhost.ledger.layout import Phase, Word
from ajhost.ledger.view import Ledger
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.stats_history import StatsHistory
from ajhost.roles.supervisor.cancel import obey_cancel
from ajhost.roles.supervisor.control_socket import Decision
from ajhost.roles.supervisor.drain import Drainer
from ajhost.roles.supervisor.fd_store import FdStore
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.liveness_monitor import LivenessMonitor
from ajhost.roles.supervisor.memory_limit import MemoryLimit
from ajhost.roles.supervisor.readiness import status_line
from ajhost.roles.supervisor.recovery.procedure import Recovery
from ajhost.roles.supervisor.shutdown import Shutdown
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.waiting_phase import SupervisorPhase
from ajhost.roles.supervisor.worker_pool import WorkerPool
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")


class RunningPhase(SupervisorPhase):
    """The phase with a connected standby. `spec` is the first generation's."""

    def __init__(
        self,
        standby: Standby,
        pool: WorkerPool,
        fd_store: FdStore,
        notifier: Notifier,
        strays: StrayProcesses,
        drainer: Drainer,
        spec: GenerationSpec,
    ) -> None:
        super().__init__()
        self._standby, self._pool, self._notifier, self._strays = standby, pool, notifier, strays
        self._guard, self._spec, self._drainer = pool.guard, spec, drainer
        self._poison_tasks = PoisonTasks((h.route, h.max_crashes) for h in spec.handlers)
        self._last_resort = LastResort(standby, pool.fleet, pool.counters)
        self._recovery = Recovery(
            standby.directory, standby, fd_store, self._poison_tasks, pool.counters, pool.guard,
            pool.fleet, self._last_resort, pool.background,
        )  # fmt: skip
        self._liveness = LivenessMonitor(standby, pool.guard, self._hang_began, self._hang_ended)
        self._memory = MemoryLimit(pool.guard)
        self._history = StatsHistory(pool.runtime)
        self._status_at = self._tick_at = 0.0

    async def begin(self) -> None:
        """Starts the ticks, and the recovery of what earlier starts left."""
        previous_start = self._recovery.previous_start
        for name in previous_start.connections.take_stored(self._notifier.stored()):
            self._notifier.forget(name)
        if previous_start and not self._pool.fleet.draining:
            await self._last_resort.subscribe()
        self._tick_in(0.0)  # the import of handlers may take long, and what waits has deadlines
        if previous_start:
            self._pool.background.spawn(self._recovery.recover_previous_start())

    @property
    def ledgers(self) -> Sequence[Ledger]:
        return [] if self._standby.removed else [self._standby.ledger]

    @property
    def retired(self) -> Sequence[Ledger]:
        return self._recovery.retired.ledgers

    @property
    def idle(self) -> bool:
        return not self._last_resort.subscribed and self._recovery.idle

    async def cancel(self, asked: Mapping[str, object]) -> Decision:
        return await obey_cancel(self._pool, self._standby, asked)

    def become_ready(self) -> bool:
        """Whether every slot has a worker in place now, for the first time; tells orphans, then, to leave the group."""
        fleet = self._pool.fleet
        if self.ready or not fleet.count or not fleet.complete():
            return False
        self.ready = True
        self._recovery.previous_start.ask_orphans_to_leave()
        self._standby.ledger.words[Word.PHASE] = Phase.SERVING
        return True

    def worker_died(self, worker: WorkerProcess, how: str) -> None:
        """Has a dead worker's requests recovered, and the processes ended that it left."""
        self._restore_sizes()  # it may have died of SIGBUS as a ledger was truncated: recovery reads those ledgers
        self._pool.background.spawn(self._recovery.recover_dead(worker, how))
        self._strays.hunt()

    def _hang_began(self, worker: WorkerProcess) -> None:
        self._pool.handle(Hung(worker.serial))
        self._pool.background.spawn(self._recovery.recover_hung(worker))

    def _hang_ended(self, worker: WorkerProcess) -> None:
        self._pool.handle(HangEnded(worker.serial))

    def apply_generation(self, spec: GenerationSpec) -> None:
        self._spec = spec
        self._poison_tasks.apply_generation((h.route, h.max_crashes) for h in spec.handlers)
        self._standby.apply_generation(spec, self._pool.generations.queues)

    def _tick(self) -> None:
        """Runs each part, whatever the others raise. A tick in which none failed notifies systemd's watchdog."""
        guard, standby, pool = self._guard, self._standby, self._pool
        now_ns, before = time.monotonic_ns(), guard.failures.total()
        late = time.monotonic() - self._tick_at
        with guard("the size of the ledgers"):
            self._restore_sizes()
        with guard("the supervisor's heartbeat"):
            standby.beat(now_ns)
        with guard("judging the workers"):
            workers, import_timeout = list(pool.workers.values()), self._spec.python.import_timeout
            self._liveness.check(workers, self._spec.workers.kill_grace, import_timeout, late)
            for worker, why in self._memory.outgrown(workers, self._spec.workers.max_memory):
                pool.recycle([worker], why)
        with guard("settling what dead workers left"):
            self._recovery.tick(now_ns)
        with guard("filling the slots"):
            pool.handle(Tick())
        with guard("covering the queue group"):
            if self.ready:
                self._last_resort.tick(pool.background)
        with guard("following max_payload"):
            if self.ready:
                pool.follow_max_payload(standby.connection.largest_request)
        if now_ns / 1e9 >= self._status_at:
            self._status_at = now_ns / 1e9 + STATUS_INTERVAL
            self._each_second()
        calm = False
        with guard("the pace of the ticks"):
            idle = standby.idle and self._last_resort.idle and self._recovery.idle
            calm = not self._strays.end() and self._liveness.calm and idle
        if guard.failures.total() == before:
            with guard("the watchdog"):
                self._notifier.watchdog()
        self._tick_in(CHECK_INTERVAL_CALM if calm else CHECK_INTERVAL)

    def _restore_sizes(self) -> None:
        for ledger in (self._standby.ledger, *self._recovery.retired.ledgers):
            if ledger.restore_size():
                _log.error("somebody has truncated the host's own ledger, or a dead worker's: its size is restored")
        for worker in list(self._pool.workers.values()):
            if worker.restore_size():
                self._pool.recycle([worker], "its ledger file was truncated")

    def _each_second(self) -> None:
        guard = self._guard
        with guard("telling of a drain"):
            self._drainer.tick()
        with guard("the status for systemd"):
            self._notifier.status(status_line(self._pool, self._drainer.text))
        with guard("reaping orphaned processes"):
            self._strays.reap()
        with guard("telling of lost log lines"):
            log_outputs.report_lost()
        with guard("keeping the history of statistics"):
            self._history.sample(m.pid for m in self._pool.workers.values() if m.pid)
        with guard("forgetting removed ledgers"):
            self._recovery.ledgers.prune()
        guard.report()

    def _tick_in(self, seconds: float) -> None:
        self._tick_at = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self._tick)

    async def stop(self, shutdown: Shutdown, drain_timeout: float) -> None:
        await shutdown.run(self._standby, self._last_resort, self._recovery, drain_timeout)
