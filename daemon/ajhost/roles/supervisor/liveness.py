"""The watch over living members: stale heartbeats, deadlines that pass while one hangs, the kill grace, memory."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import processes
from ajhost.adapters.linux.scheduling import thread_times
from ajhost.core.recovery import earliest_deadline
from ajhost.core.starvation import Starvation
from ajhost.core.timings import (
    CHECK_DELAYED,
    CHECK_INTERVAL_CALM,
    CHECK_ON_TIME,
    FIRST_HEARTBEAT_LIMIT,
    HEARTBEAT_STALE_LONGEST,
    MEMORY_CHECK_INTERVAL,
    STACKS_BEFORE_KILL,
    nanoseconds,
)
from ajhost.ledger.layout import Word
from ajhost.roles.supervisor.deadline_keeper import MISSED_NS, STALE_NS, TICK_NS, DeadlineKeeper
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.values import WorkerSettings

_log = logging.getLogger("ajhost.supervisor")
_LONGEST_STALE_NS = nanoseconds(HEARTBEAT_STALE_LONGEST)
_NEVER_BEAT_NS = nanoseconds(FIRST_HEARTBEAT_LIMIT)


class _Hang(NamedTuple):
    """Since when a member hangs (monotonic seconds), and on which of its connections."""

    since: float
    epoch: int


class LivenessMonitor:
    """Judges members at each tick. `on_recycle` is told of too much memory.

    `on_recovered` is told once per hang, `on_hang` once for each connection that a member hangs on.
    """

    def __init__(
        self,
        standby: Standby,
        guard: FaultGuard,
        *,
        on_hang: Callable[[WorkerProcess], None],
        on_recovered: Callable[[WorkerProcess], None],
        on_recycle: Callable[[WorkerProcess, str], None],
    ) -> None:
        self._guard = guard
        self._on_hang, self._on_recovered, self._on_recycle = on_hang, on_recovered, on_recycle
        self._hung: dict[int, _Hang] = {}
        self._starvations: dict[int, Starvation] = {}
        self.calm = False
        """Whether everybody was beating at the last look."""
        self._deadlines = DeadlineKeeper(standby)
        self._trust_from = 0.0
        self._memory_at = 0.0

    def hangs(self, member: WorkerProcess) -> bool:
        """Whether the member is known to hang."""
        return member.serial in self._hung

    def forget(self, member: WorkerProcess) -> None:
        """The member is gone."""
        self._hung.pop(member.serial, None)
        self._starvations.pop(member.serial, None)
        self._deadlines.forget(member.serial)

    def check(
        self, members: list[WorkerProcess], workers: WorkerSettings, import_timeout: float, late: float
    ) -> None:
        """One tick, `late` by so many seconds."""
        now = time.monotonic()
        if late > CHECK_DELAYED:
            self._trust_from = now + CHECK_INTERVAL_CALM + CHECK_DELAYED
        self.calm = False
        if now < self._trust_from:
            return
        oldest = 0
        for member in members:
            if member.pid and member.result is None:
                # one whose ledger cannot be read is no reason to judge nobody else
                with self._guard("judging a worker"):
                    oldest = max(
                        oldest, self._check_worker(member, now, workers.kill_grace, import_timeout, late)
                    )
        self.calm = not self._hung and oldest <= MISSED_NS
        if workers.max_memory and now >= self._memory_at:
            self._memory_at = now + MEMORY_CHECK_INTERVAL
            for member in members:
                if member.pid and member.result is None:
                    self._check_memory(member, workers.max_memory)

    def _check_worker(
        self, member: WorkerProcess, now: float, kill_grace: float, import_timeout: float, late: float
    ) -> int:
        """One member; the age of its last beat."""
        age = int(now * 1e9) - member.heartbeat_ns
        limit = max(member.stale_after_ns, STALE_NS)
        if not member.has_beaten:
            limit = max(_NEVER_BEAT_NS, int(import_timeout * 1e9))
        lead_ns = TICK_NS if member.serial in self._hung else 0
        with self._guard("keeping the deadlines of a worker"):
            self._deadlines.check(
                member.ledger,
                int(now * 1e9),
                lead_ns,
                on_time=late <= CHECK_ON_TIME,
                heartbeat_ns=member.heartbeat_ns,
            )
        if age - self._starved_ns(member, age, now, late) > limit:
            self._on_stale(member, now, kill_grace)
        elif member.serial in self._hung and member.subscribed:
            hung_for = now - self._hung.pop(member.serial).since
            member.killed_at = 0.0  # the next hang is judged anew
            if hung_for < 2 * STALE_NS / 1e9:  # a false alarm: judge it less strictly
                member.stale_after_ns = min(limit * 2, _LONGEST_STALE_NS)
            _log.warning("worker %d (pid %d) goes on after hanging", member.slot, member.pid)
            self._on_recovered(member)
        return age

    def _starved_ns(self, member: WorkerProcess, age: int, now: float, late: float) -> int:
        """For how long the member wanted a CPU and had none, since it was first seen to miss a beat."""
        if age <= MISSED_NS:
            self._starvations.pop(member.serial, None)
            return 0
        starvation = self._starvations.setdefault(member.serial, Starvation())
        starvation.observe(thread_times(member.pid), int(now * 1e9), int(max(late, 0.0) * 1e9))
        return starvation.starved_ns

    def _on_stale(self, member: WorkerProcess, now: float, kill_grace: float) -> None:
        hang, epoch = self._hung.get(member.serial), member.ledger.words[Word.EPOCH]
        if hang is None or hang.epoch != epoch:
            # or it woke for a moment, in which it has connected again and begun another task that holds it up
            again = " again" if hang else ""
            member.killed_at = 0.0
            self._hung[member.serial] = _Hang(now, epoch)
            _log.warning(
                "worker %d (pid %d) hangs%s: no beat for %.2f s",
                member.slot,
                member.pid,
                again,
                STALE_NS / 1e9,
            )
            self._on_hang(member)
            return
        first = earliest_deadline(member.ledger)
        until = (hang.since if first is None else first / 1e9) + kill_grace
        if now < until:
            return
        if not member.killed_at:
            member.killed_at = now
            _log.error(
                "worker %d (pid %d) hangs past the kill grace: its stacks follow, then SIGKILL",
                member.slot,
                member.pid,
            )
            processes.pidfd_signal(member.pidfd, signal.SIGUSR2)
        elif now - member.killed_at >= STACKS_BEFORE_KILL:
            processes.pidfd_signal(member.pidfd, signal.SIGKILL)

    def _check_memory(self, member: WorkerProcess, max_memory: int) -> None:
        try:
            resident = processes.resident_bytes(member.pid)
        except OSError:
            return  # it is about to be found dead, or this process has no descriptor left to look
        if resident > max_memory:
            self._on_recycle(member, f"{resident >> 20} MiB resident, the limit is {max_memory >> 20} MiB")
