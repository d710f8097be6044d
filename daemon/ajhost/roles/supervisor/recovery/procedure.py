"""Runs the procedure of recovery: on a worker's death, on a hang, and for what earlier starts left. Stops a worker that
hangs, kills one that somebody else has stopped, and limits how long it waits for a server to end a connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from ajhost.adapters.fault_guard import Background, FaultGuard
from ajhost.adapters.linux import ledger_file, processes, tcp
from ajhost.adapters.linux.ledger_file import GuardedLedger
from ajhost.core.fleet import Fleet
from ajhost.core.host_counters import Counters
from ajhost.core.poison_tasks import PoisonTasks
from ajhost.core.recovery_rules import USUALLY, Fact, classify
from ajhost.core.timings import (
    DEAD_DRAIN_LIMIT,
    DEAD_DRAIN_LIMIT_STOPPING,
    DRAIN_LIMIT,
    RESOURCE_RETRY,
    STANDBY_SUBSCRIBE_LIMIT,
    STOP_LIMIT,
    STOP_RETRY,
)
from ajhost.ledger.layout import Geometry, Identity, Word
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.supervisor.fd_store import FdStore, Key
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.recovery.answer_and_requeue import AnswerAndRequeue
from ajhost.roles.supervisor.recovery.connection_reader import ConnectionReader, End
from ajhost.roles.supervisor.recovery.orphan import Orphan
from ajhost.roles.supervisor.recovery.previous_start import Copies, PreviousStart, order
from ajhost.roles.supervisor.recovery.remains import Remains, RetiredLedgers
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")
_NO_ENTRIES, _NO_STORE = 8, 4096
"""Entries and frame store of a ledger of which only the receive buffer is needed."""
_INSIST = 40
"""How often a step is tried for which this process lacks descriptors or memory."""
LivingWorker = WorkerProcess | Orphan
"""A worker that may hang: one of this start, or an orphan."""


class Recovery:
    def __init__(
        self,
        directory: Path,
        standby: Standby,
        fd_store: FdStore,
        poison_tasks: PoisonTasks,
        counters: Counters,
        guard: FaultGuard,
        fleet: Fleet,
        last_resort: LastResort,
        background: Background,
    ) -> None:
        self._directory, self._standby, self._fd_store, self._guard = directory, standby, fd_store, guard
        self._fleet, self._last_resort, self._background = fleet, last_resort, background
        self.ledgers = LedgerCache(directory, standby.ledger, kind=GuardedLedger)
        self._steps = AnswerAndRequeue(standby, self.ledgers, poison_tasks, counters)
        self._copies = Copies()
        self._dead_limit = DEAD_DRAIN_LIMIT
        self._limits: set[asyncio.Timeout] = set()
        self.retired = RetiredLedgers(directory, standby, guard)
        self.previous_start = PreviousStart(directory, standby, fd_store)

    # -- the procedure --------------------------------------------------------------------------

    async def recover(self, *batch: Remains) -> None:
        """Recovers what one process left, or several of earlier starts (the package's docstring has the steps).

        It may be called again for the same remains: each step does what is left to do.

        :raises Exception: what a step raises for a process that is only stopped. The caller resumes it.
        """
        steps = self._steps
        batch = tuple(sorted(batch, key=lambda one: order(one.ledger)))
        for one in batch:
            one.ledger.fence()
            if not one.stopped:
                self.retired.add(one)
        # a dead supervisor's ledger has answers for requests that its workers' ledgers have too: one is enough
        answered: set[bytes] = set()
        for one in batch:
            await self._insist("answering for a process", one, lambda one: steps.answer_started(one, answered))
        # the newest ledger first: its copies are known, then, when the ledger with the originals is looked at
        for one in reversed(batch):
            if Fact.SUPERVISOR_GONE in one.facts:
                one.copied = self._copies.in_later_ledgers(one.ledger)
            await self._insist("moving what had not started", one, lambda one: steps.requeue_entries(one))
            if Fact.SUPERVISOR_GONE in one.facts:
                self._copies.add(one.ledger)
        # last: of the requests that these tokens name, only those in a living process's ledger are left to requeue
        for one in batch:
            await self._insist("moving what a process had dequeued", one, lambda one: steps.requeue_tokens(one))
        await asyncio.gather(*(self._finish(one) for one in batch if not one.reading_begun))

    async def _insist(self, job: str, one: Remains, step: Callable[[Remains], None]) -> None:
        """Tries a step `_INSIST` times at most while this process lacks descriptors or memory.

        For a process that is only stopped it tries once and raises the error: that process cannot wait.
        """
        for _ in range(_INSIST):
            try:
                step(one)
            except Exception as error:
                if one.stopped:
                    raise
                self._guard.failed(job, error)
                if not isinstance(error, OSError | MemoryError):
                    break
            else:
                # at once: the rest of this turn of the loop may recover many requests of other processes
                self._standby.transport.out.flush()
                return
            await asyncio.sleep(RESOURCE_RETRY)
        _log.error("%s was given up: requests are lost", job)

    async def _finish(self, one: Remains) -> None:
        """Drains the connection, settles what depends on its end, and marks it as taken over, whatever step fails.

        If this process ends meanwhile, the connection is not marked, and the next start reads on.
        """
        one.reading_begun = True
        if not one.stopped and (count := one.answered + one.requeued):
            _log.warning("%d requests of %s: %d had started, %d are moved", count, one, one.answered, one.requeued)
        ledger = one.ledger
        with self._guard("reading a process's connection to its end"):
            if one.stopped and (one.sock is None or ledger.words[Word.TLS]):
                # it has no connection, or one that only it can read (TLS): it reads the rest itself when it goes on
                ledger.unfence()
            else:
                read = await self._read_to_end(one)
                if sent := classify(ledger, one.facts).confirm:
                    # a server that is ending itself may have read the replies and not passed them on
                    read = read and await self._standby.connection.answers(STANDBY_SUBSCRIBE_LIMIT)
                    self._steps.confirm_sent(one, sent, read=read)
        if one.sock is not None:
            # shutdown(2) before close(2): a child that a handler has forked may have the socket as well
            tcp.end_sending(one.sock)
            one.sock.close()
        if one.sock is not None or not one.stopped:
            self._fd_store.forget(ledger.serial)
        ledger.mark_taken_over()
        one.settled = True

    async def _read_to_end(self, one: Remains) -> bool:
        """Requeues what arrives on the connection. Returns whether the server has surely read what was sent on it."""
        if one.ledger.is_taken_over():
            return True
        limit = asyncio.timeout(DRAIN_LIMIT if one.stopped else self._dead_limit)
        if not one.stopped:
            self._limits.add(limit)
        reader = ConnectionReader(one, self._standby, self._last_resort)
        try:
            end = await reader.to_its_end(limit)
        finally:
            self._limits.discard(limit)
            self._steps.count_requeued(one, reader.count)
        if reader.count:
            _log.warning("%s: %d requests moved from its connection", one, reader.count)
        if end is End.PENDING:
            if one.stopped:
                self._detach_rest(one)
            else:
                _log.error("%s: its server does not answer, what it had for it is lost", one)
        return end is End.ORDERLY

    def _detach_rest(self, one: Remains) -> None:
        """Gives the rest of a stopped worker's connection, which its server has not ended in time, its own ledger.

        That ledger is recovered like one of a worker that died with this connection.
        """
        ledger = one.ledger
        identity = Identity(self._fleet.take_serial(), ledger.slot, ledger.generation)
        try:
            ledger_file.make(self._directory, Geometry(_NO_ENTRIES, ledger.chunk_size, _NO_STORE), identity)
            heir = GuardedLedger(self._directory, identity.serial)
        except OSError as error:
            _log.error("%s: what its server has for it is lost: %s", one, error.strerror)
            return
        buffer = ReceiveBuffer(ledger)
        buffer.resume(0)
        buffer.transfer_to(heir)
        rest, one.sock = one.sock, None
        if rest is not None:
            self._fd_store.keep(Key(heir.serial, heir.words[Word.EPOCH]), rest)
        self._fd_store.forget(ledger.serial)
        self._background.spawn(self.recover(Remains(heir, USUALLY, one.how, rest)))

    # -- when it begins -------------------------------------------------------------------------

    async def recover_dead(self, worker: WorkerProcess, how: str) -> None:
        async with worker.takeover_lock:
            facts = USUALLY if worker.connected else Fact.SERVER_UNKNOWN
            await self.recover(Remains(worker.ledger, facts, how, worker.take_socket()))

    async def recover_hung(self, worker: LivingWorker) -> None:
        """Stops a hanging worker, requeues what it had not started, ends its connection, and resumes it. Tries until
        that has worked, or the worker is dead or does not hang any more.
        """
        await self._last_resort.subscribe_if_last(STANDBY_SUBSCRIBE_LIMIT)
        while True:
            with self._guard("taking over a hanging worker"):
                async with worker.takeover_lock:
                    if await self._recover_stopped(worker):
                        return
            await asyncio.sleep(STOP_RETRY)

    async def _recover_stopped(self, worker: LivingWorker) -> bool:
        """Returns False when the worker could not be stopped in time."""
        if worker.dead or not worker.hangs:
            return True
        one = Remains(worker.ledger, Fact.OWNER_STOPPED)
        stopped = processes.stop(worker.pidfd, worker.pid, STOP_LIMIT)
        if stopped is processes.StopResult.ALREADY_STOPPED:
            # another process has stopped it, and may resume it at any moment, also in the middle of a takeover
            _log.error("%s was stopped from outside: SIGKILL", one)
            worker.kill()
            return True
        if stopped is processes.StopResult.TIMEOUT:
            _log.warning("%s does not stop: trying again", one)
            return False
        if stopped is processes.StopResult.GONE:
            return True
        one.sock = worker.take_socket()
        try:
            await self.recover(one)
        finally:
            if not one.reading_begun:
                one.ledger.unfence()
                worker.give_back_socket(one.sock)
            if not worker.dead:
                processes.resume(worker.pidfd)
        _log.warning("%s: %d requests moved while it hangs", one, one.requeued)
        return True

    async def recover_previous_start(self) -> None:
        found = self.previous_start.collect()
        await self.recover(*(one for one in found if not one.reading_begun or one in self.retired))
        if not self.previous_start:
            self._copies.clear()

    def tick(self, now_ns: int) -> None:
        """Settles retired ledgers, and starts the recoveries that are due for earlier starts. Call it at every tick."""
        self.retired.tick(now_ns)
        for orphan in self.previous_start.check_orphans(now_ns):
            self._background.spawn(self.recover_hung(orphan))
        if self.previous_start.due():
            self._background.spawn(self.recover_previous_start())

    @property
    def idle(self) -> bool:
        return not self.retired.ledgers and not self.previous_start

    def shorten_waits(self) -> None:
        """Waits less long from now on for servers that do not end a dead worker's connection: the host stops."""
        self._dead_limit = DEAD_DRAIN_LIMIT_STOPPING
        soon = asyncio.get_running_loop().time() + DEAD_DRAIN_LIMIT_STOPPING
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(soon)
