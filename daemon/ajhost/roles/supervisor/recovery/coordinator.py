"""When recovery acts: on a worker's death, on its hang, and at each tick for what is left."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Protocol

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import ledger_file, processes, tcp
from ajhost.adapters.linux.ledger_file import MappedLedger
from ajhost.core.crash_policy import CrashPolicy
from ajhost.core.recovery import USUALLY, Fact
from ajhost.core.stats import Counters
from ajhost.core.timings import (
    DEAD_DRAIN_LIMIT,
    DEAD_DRAIN_LIMIT_STOPPING,
    RESOURCE_RETRY,
    STANDBY_SUBSCRIBE_LIMIT,
    STOP_LIMIT,
    STOP_RETRY,
)
from ajhost.ledger.layout import Geometry, Identity, Word
from ajhost.ledger.view import Ledger
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.supervisor.connections import FdStore, Key
from ajhost.roles.supervisor.recovery.previous_start import PreviousStart
from ajhost.roles.supervisor.recovery.retired import RetiredLedgers
from ajhost.roles.supervisor.recovery.takeover import (
    Ready,
    answer_started,
    at_once,
    complete,
    confirm_sent,
    detach,
    requeue_from_stopped,
    requeue_tokens,
    requeue_waiting,
)
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")
_NO_ENTRIES, _NO_STORE = 8, 4096
"""Entries and frame store of a ledger of which only the receive buffer is needed."""
_INSIST = 40
"""How often a step is tried again that found no free descriptor, or the like."""


class LivingWorker(Protocol):
    """A living worker that may hang: one of this start, or an orphan of an earlier one."""

    pid: int
    ledger: MappedLedger
    takeover_lock: asyncio.Lock
    """Held while its connection is taken over: two takeovers of one ledger would run its requests twice."""
    being_taken_over: bool
    """Its connection is being taken over."""

    @property
    def pidfd(self) -> int:
        """The process's descriptor."""

    @property
    def dead(self) -> bool:
        """Whether it is known to have ended."""

    def kill(self) -> None:
        """SIGKILL."""

    def take_socket(self) -> socket.socket | None:
        """Hands out a duplicate of its present connection, once; None when there is none."""


class Recovery:
    """Recovers what processes leave, with the standby's ledger and connection.

    `subscribe(patience)` is awaited before the last subscriber's connection ends, for at most so many seconds (None:
    without a limit). `spawn(work)` runs a task in the background. `serial()` returns the serial of one more ledger.
    """

    def __init__(
        self,
        directory: Path,
        standby: Standby,
        fd_store: FdStore,
        crash_policy: CrashPolicy,
        counters: Counters,
        guard: FaultGuard,
        *,
        subscribe: Callable[[float | None], Awaitable[None]],
        spawn: Callable[[Coroutine[None, None, None]], None],
        serial: Callable[[], int],
    ) -> None:
        self._directory, self._standby, self._fd_store, self._crash_policy = (
            directory,
            standby,
            fd_store,
            crash_policy,
        )
        self._counters, self._subscribe, self._spawn, self._serial = counters, subscribe, spawn, serial
        self._guard = guard
        self._dead_patience = DEAD_DRAIN_LIMIT
        self._limits: set[asyncio.Timeout] = set()
        self._ledgers = LedgerCache(directory, standby.ledger)
        self.retired = RetiredLedgers(directory, standby, self._ledgers, guard)
        self.previous_start = PreviousStart(directory, standby, self.retired, self._ledgers, fd_store)

    def shorten_waits(self) -> None:
        """The host stops: waits less long for servers that do not end a dead worker's connection."""
        self._dead_patience = DEAD_DRAIN_LIMIT_STOPPING
        soon = asyncio.get_running_loop().time() + DEAD_DRAIN_LIMIT_STOPPING
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(soon)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to recover."""
        return self.retired.empty and not self.previous_start

    def prune(self) -> None:
        """Forgets ledgers whose files are gone. Call it about once a second."""
        self._ledgers.prune()

    def answer_started(self, member: WorkerProcess, how: str) -> int:
        """Answers at once what a dead worker had started."""
        member.ledger.recount_touched()
        count = answer_started(
            member.ledger, self._standby, lambda entry: self._crash_policy.outcome(entry, how), self._ledgers,
            USUALLY if member.connected else Fact.SERVER_UNKNOWN,
        )  # fmt: skip
        self._counters.answered += count
        return count

    async def recover_dead(self, member: WorkerProcess, how: str, answered: int | None) -> None:
        """Requeues what a dead worker had not started. Whatever fails, its connection and subscription end.

        `answered` is None when `answer_started` failed: it is tried again first.
        """
        requeued, sock = 0, None
        try:
            async with member.takeover_lock:
                if answered is None:
                    job = "answering for a dead worker"
                    answered = await self._insist(job, lambda: self.answer_started(member, how))
                sock = member.take_socket()
                requeued = await self._insist(
                    "moving what a dead worker had pulled",
                    lambda: requeue_tokens(member.ledger, self._standby, self._ledgers),
                )
                self._counters.requeued += requeued
                # it stays subscribed until another process is, and what arrives meanwhile is requeued as well
                requeued += await self._drain_connection(member.ledger, sock, lambda: self._subscribe(None))
        finally:
            if sock is not None:
                tcp.end_sending(sock)
                sock.close()
            self.retired.add(member.ledger)
        if answered or requeued:
            _log.warning(
                "worker %d (pid %d): %d started tasks answered for, %d requests moved",
                member.slot, member.pid, answered, requeued,
            )  # fmt: skip

    async def _insist(self, job: str, step: Callable[[], int]) -> int:
        """Repeats a step until it succeeds, within limits: this process may lack descriptors for a while."""
        for _ in range(_INSIST):
            with self._guard(job):
                return step()
            await asyncio.sleep(RESOURCE_RETRY)
        _log.error("%s was given up: requests are lost", job)
        return 0

    async def _drain_connection(
        self,
        ledger: MappedLedger,
        sock: socket.socket | None,
        ready: Ready = at_once,
    ) -> int:
        """Requeues what is left in a dead process's ledger and connection, however long that takes."""
        limit = asyncio.timeout(self._dead_patience)
        self._limits.add(limit)
        try:
            requeued = await requeue_waiting(ledger, sock, self._standby, limit=limit, ready=ready)
        finally:
            self._limits.discard(limit)
        self._counters.requeued += requeued.count
        if requeued.rest is not None:
            _log.error("worker slot %d: its server does not answer, what it had for it is lost", ledger.slot)
            requeued.rest.close()
            complete(ledger)
        read = requeued.rest is None and not requeued.broken
        # a server that ends as well may have read it and not passed it on
        confirm_sent(ledger, self._standby, read=read and await self._standby.server_lives())
        self._fd_store.forget(ledger.serial)
        return requeued.count

    async def _drain_rest(self, ledger: MappedLedger, rest: socket.socket) -> None:
        """Drains the rest of a connection, long after all else was recovered."""
        if count := await self._drain_connection(ledger, rest):
            _log.warning("worker slot %d: %d requests moved that came late", ledger.slot, count)

    async def recover_hung(self, worker: LivingWorker, hangs: Callable[[], bool]) -> None:
        """Takes a hanging worker out of the queue group and requeues what it had not started, while it is stopped."""
        await self._subscribe(STANDBY_SUBSCRIBE_LIMIT)
        while True:
            with self._guard("taking over a hanging worker"):
                async with worker.takeover_lock:
                    if await self._recover_stopped(worker, hangs):
                        return
            await asyncio.sleep(STOP_RETRY)

    async def _recover_stopped(self, worker: LivingWorker, hangs: Callable[[], bool]) -> bool:
        """False when it could not be stopped."""
        if worker.dead or not hangs():
            return True
        ledger = worker.ledger
        stopped = processes.stop(worker.pidfd, worker.pid, STOP_LIMIT)
        if stopped is processes.StopResult.ALREADY_STOPPED:
            # another process stopped it, and may resume it at any moment, also in the middle of a takeover
            _log.error("worker %d (pid %d) was stopped from outside: SIGKILL", ledger.slot, worker.pid)
            worker.kill()
            return True
        if stopped is processes.StopResult.TIMEOUT:
            _log.warning("worker %d (pid %d) does not stop: trying again", ledger.slot, worker.pid)
            return False
        if stopped is processes.StopResult.GONE:
            return True
        worker.being_taken_over = True
        try:
            sock = worker.take_socket()
            requeued = await requeue_from_stopped(ledger, sock, self._standby, self._ledgers)
            if requeued.rest is not None:
                self._detach_rest(ledger, requeued.rest)
            self._counters.requeued += requeued.count
        finally:
            worker.being_taken_over = False
            if not worker.dead:
                processes.resume(worker.pidfd)
        if sock is not None:
            self._fd_store.forget(ledger.serial)
        _log.warning(
            "worker %d (pid %d): %d requests moved while it hangs", ledger.slot, worker.pid, requeued.count
        )
        return True

    def _detach_rest(self, ledger: Ledger, rest: socket.socket) -> None:
        """Gives the rest of a connection a ledger of its own, since its server has not ended it in time.

        The new ledger is recovered like that of a worker which died with this connection.
        """
        identity = Identity(self._serial(), ledger.slot, ledger.generation)
        try:
            ledger_file.make(self._directory, Geometry(_NO_ENTRIES, ledger.chunk_size, _NO_STORE), identity)
            heir = ledger_file.MappedLedger(self._directory, identity.serial)
        except OSError as error:
            _log.error("worker slot %d: what its server has for it is lost: %s", ledger.slot, error.strerror)
            rest.close()
        else:
            detach(ledger, heir)
            self._fd_store.keep(Key(heir.serial, heir.words[Word.EPOCH]), rest)
            self.retired.add(heir)
            self._spawn(self._drain_rest(heir, rest))
        complete(ledger)

    def tick(self, now_ns: int) -> None:
        """Handles retired ledgers and orphans. Call it at every tick."""
        self.retired.tick(now_ns)
        for orphan in self.previous_start.check_orphans(now_ns):
            self._spawn(self.recover_hung(orphan, orphan.hangs))
        if self.previous_start and self.previous_start.due():
            self._spawn(self.recover_previous_start())

    async def recover_previous_start(self) -> None:
        """Recovers the ledgers of earlier starts whose owners are dead."""
        unfinished = await self.previous_start.recover(
            lambda entry: self._crash_policy.outcome(entry, "the host was killed or stopped")
        )
        for ledger, rest in unfinished:
            self._spawn(self._drain_rest(ledger, rest))
