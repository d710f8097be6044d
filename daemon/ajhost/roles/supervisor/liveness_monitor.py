"""The liveness of workers: signs of life at each tick, hangs told of and ended in time, deadlines kept."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import proc, processes, tcp
from ajhost.core.liveness_rules import (
    LONGEST_STALE_NS,
    MISSED_NS,
    STALE_NS,
    STALLED_NS,
    STARVED_NS,
    LifeSign,
    Observation,
    Verdict,
    judge,
    may_take_over,
    missing,
)
from ajhost.core.recovery_rules import earliest_deadline
from ajhost.core.stacks_gate import StacksGate
from ajhost.core.starvation import Starvation
from ajhost.core.timings import (
    CHECK_INTERVAL_CALM,
    CHECK_ON_TIME,
    FIRST_HEARTBEAT_LIMIT,
    HEARTBEAT_MISSED,
    STACKS_BEFORE_KILL,
    STOP_LIMIT,
    nanoseconds,
)
from ajhost.ledger.connection_status import ConnectionState
from ajhost.ledger.layout import Phase, Word
from ajhost.roles.supervisor.deadline_keeper import TICK_NS, DeadlineKeeper
from ajhost.roles.supervisor.memory_limit import MemoryLimit
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.values import WorkerSettings

_NO_BETTER_ANEW = (ConnectionState.SUBSCRIBED, ConnectionState.LOCKED_OUT)
"""States of a connection in which a new worker would be no better off."""

_log = logging.getLogger("ajhost.supervisor")
_NEVER_BEAT_NS = nanoseconds(FIRST_HEARTBEAT_LIMIT)
_FIRST_SEEN_NS = nanoseconds(HEARTBEAT_MISSED + CHECK_INTERVAL_CALM)
"""The age of a missed heartbeat at which it is seen at the latest, unless this process was held up itself."""


@dataclass(slots=True)
class _Watched:
    """What the checks before know of one worker. Times are monotonic nanoseconds, 0 for none."""

    hung_ns: int = 0
    """Since when it hangs."""
    hung_epoch: int = 0
    """On which of its connections."""
    ran_ns: int = 0
    """When a task of it was last seen to run while it hung."""
    patience_ns: int = STALE_NS
    starvation: Starvation | None = None
    """Since a heartbeat was missed."""
    stalled_ns: int = 0
    """How long it has neither beaten nor begun a task since then, as far as this process ran."""
    looked_ns: int = 0
    """When this process last looked."""
    unseen_ns: int = 0
    """How long that had been so when it was first seen, beyond what a calm tick takes."""
    read: tuple[int, int] = (0, 0)
    """Epoch and stream position at the last check with unread bytes."""
    unread_since_ns: int = 0
    unread_beats: int = 0
    beat_ns: int = 0
    """The heartbeat at the last check."""
    unsubscribed_since_ns: int = 0
    epoch: int = 0
    """Its connection at the last check."""
    stacks_at: float = 0.0
    """When it was asked for its stacks (monotonic seconds)."""


class LivenessEvents(Protocol):
    """What the monitor finds; `Running` acts on it."""

    def hang_began(self, worker: WorkerProcess) -> None:
        """Called once for each connection that a worker hangs on."""

    def hang_ended(self, worker: WorkerProcess) -> None:
        """Called once for each hang that ends."""

    def worker_outgrew(self, worker: WorkerProcess, why: str) -> None:
        """It has too much memory."""


class LivenessMonitor:
    """Judges workers at each tick; `core/liveness_rules.py` has the rules."""

    def __init__(self, standby: Standby, guard: FaultGuard, events: LivenessEvents) -> None:
        self._standby, self._guard, self._events = standby, guard, events
        self._watched: dict[int, _Watched] = {}
        self.calm = False
        """Whether everybody was beating at the last check."""
        self._deadlines = DeadlineKeeper(standby)
        self._stacks = StacksGate(standby.ledger.words[Word.STACKS_TOLD :])
        self._connected_since_ns = self._took_over_ns = 0
        self._memory = MemoryLimit(guard)

    def check(
        self, workers: list[WorkerProcess], settings: WorkerSettings, import_timeout: float, late: float
    ) -> None:
        """One tick, `late` by so many seconds."""
        now = time.monotonic()
        self.calm = True
        living = [worker for worker in workers if worker.pid and not worker.dead]
        for serial in self._watched.keys() - {worker.serial for worker in living}:
            del self._watched[serial]
            self._deadlines.forget(serial)
        self._note_connected(living, now)
        never_beat_ns = max(_NEVER_BEAT_NS, int(import_timeout * 1e9))
        for worker in living:
            # a ledger that cannot be read is no reason to judge nobody else
            with self._guard("keeping the deadlines of a worker"):
                self._keep_deadlines(worker, now, late)
            with self._guard("judging a worker"):
                self._check_worker(worker, now, settings.kill_grace, never_beat_ns)
        for worker, why in self._memory.outgrown(living, settings.max_memory, now):
            self._events.worker_outgrew(worker, why)

    def _note_connected(self, living: list[WorkerProcess], now: float) -> None:
        """Since when any process of this host is connected, so that the others could be as well."""
        states = [worker.ledger.words[Word.CONNECTION] for worker in living]
        if not self._standby.connection.up.is_set() and ConnectionState.SUBSCRIBED not in states:
            self._connected_since_ns = 0
        elif not self._connected_since_ns:
            self._connected_since_ns = int(now * 1e9)

    def _keep_deadlines(self, worker: WorkerProcess, now: float, late: float) -> None:
        """However late this process is itself: what is past its deadline is answered, whoever is to blame."""
        hangs, now_ns = worker.hangs, int(now * 1e9)
        answered = self._deadlines.check(
            worker.ledger,
            now_ns,
            TICK_NS if hangs else 0,
            on_time=late <= CHECK_ON_TIME,
            heartbeat_ns=0 if hangs else worker.heartbeat_ns,
            still=lambda: processes.standing_still(worker.pidfd, worker.pid, STOP_LIMIT),
        )
        if answered and hangs and self._stacks.take(f"slot {worker.slot}", now_ns):
            _log.warning(
                "worker %d (pid %d) hangs, and a task of it is at its deadline: its stacks follow",
                worker.slot, worker.pid,
            )  # fmt: skip
            worker.ask_for_stacks()
            asyncio.get_running_loop().call_later(STACKS_BEFORE_KILL, _log_stacks, worker, logging.WARNING)

    # -- one worker -----------------------------------------------------------------------------

    def _check_worker(self, worker: WorkerProcess, now: float, kill_grace: float, never_beat_ns: int) -> None:
        watched = self._watched.setdefault(worker.serial, _Watched())
        now_ns = int(now * 1e9)
        seen = self._observe(worker, watched, now_ns, kill_grace, never_beat_ns)
        if missing(seen) is LifeSign.HEARTBEAT:
            # its connection is taken from it while its loop stands still: it can connect when the loop turns again
            watched.unsubscribed_since_ns = now_ns
        verdict = judge(seen)
        self.calm = self.calm and verdict is Verdict.ALIVE
        match verdict:
            case Verdict.HUNG if not watched.hung_ns or seen.reconnected:
                self._found_hanging(worker, watched, seen, now_ns)
            case Verdict.HANG_ENDED:
                self._found_hang_ended(worker, watched, now_ns)
            case Verdict.EXPIRED:
                self._expire(worker, watched, now)

    def _observe(
        self,
        worker: WorkerProcess,
        watched: _Watched,
        now_ns: int,
        kill_grace: float,
        never_beat_ns: int,
    ) -> Observation:
        words, age = worker.ledger.words, now_ns - worker.heartbeat_ns
        if age <= MISSED_NS:
            watched.starvation, watched.stalled_ns = None, 0
        elif watched.starvation is None:
            # what kept this process from seeing it earlier kept the worker from beating as well
            watched.starvation, watched.unseen_ns = Starvation(), max(age - _FIRST_SEEN_NS, 0)
        starved_ns = 0
        if watched.starvation is not None:
            watched.starvation.observe(proc.thread_times(worker.pid), now_ns)
            starved_ns = watched.starvation.starved_ns
            self._observe_stall(worker, watched, now_ns)
        watched.looked_ns = now_ns
        first = earliest_deadline(worker.ledger, now_ns) if watched.hung_ns else None
        if first is not None:
            watched.ran_ns = now_ns
        # one whose last task has just ended is about to write its heartbeat
        until_ns = (max(watched.hung_ns, watched.ran_ns) if first is None else first) + int(kill_grace * 1e9)
        return Observation(
            age=age,
            patience=watched.patience_ns if worker.has_beaten else never_beat_ns,
            starved=starved_ns,
            stalled=watched.stalled_ns if worker.has_beaten else 0,
            unseen=0 if watched.starvation is None else watched.unseen_ns,
            unread=self._unread_ns(worker, watched, now_ns),
            unread_beats=watched.unread_beats,
            unsubscribed=self._unsubscribed_ns(worker, watched, now_ns),
            hung=bool(watched.hung_ns),
            reconnected=bool(watched.hung_ns) and watched.hung_epoch != words[Word.EPOCH],
            subscribed=worker.subscribed,
            left=until_ns - now_ns,
        )

    @staticmethod
    def _observe_stall(worker: WorkerProcess, watched: _Watched, now_ns: int) -> None:
        watched.stalled_ns += min(now_ns - watched.looked_ns, STALE_NS)
        if watched.stalled_ns > STALLED_NS:
            # a turn of the loop in which task after task begins is long, and no hang
            watched.stalled_ns = min(watched.stalled_ns, max(now_ns - worker.ledger.last_start_ns(), 0))

    @staticmethod
    def _unread_ns(worker: WorkerProcess, watched: _Watched, now_ns: int) -> int:
        """For how long bytes wait in its connection, none of which it reads, though it has room for them."""
        words, sock = worker.ledger.words, worker.sock
        position = words[Word.EPOCH], words[Word.RECEIVED_POS]
        waits = (
            sock is not None
            and worker.epoch == words[Word.EPOCH]
            and words[Word.SOCKET]  # it has not given this connection up
            and not words[Word.READING_PAUSED]
            and tcp.unread(sock) > 0
        )
        if not waits:
            watched.unread_since_ns = 0
        elif not watched.unread_since_ns or watched.read != position:
            watched.unread_since_ns, watched.unread_beats = now_ns, 0
        elif worker.heartbeat_ns != watched.beat_ns:
            watched.unread_beats += 1
        watched.beat_ns = worker.heartbeat_ns
        watched.read = position
        return now_ns - watched.unread_since_ns if watched.unread_since_ns else 0

    def _unsubscribed_ns(self, worker: WorkerProcess, watched: _Watched, now_ns: int) -> int:
        """For how long it has been out of the queue group while another process of the host was connected.

        One that the server locks out cannot be in it: a new one would be locked out as well, and it keeps trying.
        """
        words = worker.ledger.words
        # a hanging worker that has connected is about to subscribe: a takeover would only cut the new connection
        reconnected = watched.hung_ns and watched.epoch != words[Word.EPOCH]
        watched.epoch = words[Word.EPOCH]
        if words[Word.PHASE] != Phase.SERVING or words[Word.CONNECTION] in _NO_BETTER_ANEW:
            watched.unsubscribed_since_ns = 0
            return 0
        if not watched.unsubscribed_since_ns or reconnected:
            watched.unsubscribed_since_ns = now_ns
        if not self._connected_since_ns:
            return 0
        return now_ns - max(watched.unsubscribed_since_ns, self._connected_since_ns)

    def _found_hanging(
        self, worker: WorkerProcess, watched: _Watched, seen: Observation, now_ns: int
    ) -> None:
        sign = missing(seen)
        if sign is None:
            return  # it hung, and is about to subscribe again
        if not may_take_over(seen, now_ns - self._took_over_ns):
            return
        self._took_over_ns = now_ns
        # or it woke for a moment, in which it has connected again and begun another task that holds it up
        again = " again" if watched.hung_ns else ""
        watched.hung_ns, watched.hung_epoch, watched.stacks_at = now_ns, worker.ledger.words[Word.EPOCH], 0.0
        worker.hangs = True
        _log.warning(
            "worker %d (pid %d) hangs%s: %s", worker.slot, worker.pid, again, self._why(worker, sign, seen)
        )
        self._events.hang_began(worker)

    @staticmethod
    def _why(worker: WorkerProcess, sign: LifeSign, seen: Observation) -> str:
        if sign is LifeSign.HEARTBEAT:
            had = max(seen.age - seen.starved - seen.unseen, 0) / 1e9
            short = (
                f" of the time that it had, {seen.age / 1e9:.2f} s in all"
                if seen.starved >= STARVED_NS
                else ""
            )
            return f"no beat for {had:.2f} s{short}"
        used, limit = proc.descriptors(worker.pid)
        full = f"; too many open files: {used} of {limit}" if 0 < limit <= used + 1 else ""
        return f"{sign.value}{full}"

    def _found_hang_ended(self, worker: WorkerProcess, watched: _Watched, now_ns: int) -> None:
        if now_ns - watched.hung_ns < 2 * STALE_NS:  # a false alarm: judge it less strictly
            watched.patience_ns = min(watched.patience_ns * 2, LONGEST_STALE_NS)
        watched.hung_ns, watched.stacks_at, worker.hangs = 0, 0.0, False
        _log.warning("worker %d (pid %d) goes on after hanging", worker.slot, worker.pid)
        self._events.hang_ended(worker)

    def _expire(self, worker: WorkerProcess, watched: _Watched, now: float) -> None:
        if not watched.stacks_at:
            watched.stacks_at = now
            _log.error(
                "worker %d (pid %d) hangs past the kill grace: its stacks follow, then SIGKILL",
                worker.slot,
                worker.pid,
            )
            worker.ask_for_stacks()
        elif now - watched.stacks_at >= STACKS_BEFORE_KILL:
            _log_stacks(worker, logging.ERROR)
            worker.kill()


def _log_stacks(worker: WorkerProcess, level: int) -> None:
    if not worker.dead and (stacks := worker.stacks()):
        _log.log(level, "the stacks of worker %d (pid %d):\n%s", worker.slot, worker.pid, stacks)
