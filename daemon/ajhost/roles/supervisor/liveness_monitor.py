"""Checks at each tick, by their signs of life, whether workers hang; `core/liveness_rules.py` judges what it observes:
heartbeats, bytes that are not read, absence from the queue group. Logs stacks, and kills a worker that hangs past
`kill_grace`; at deadlines `overdue_answers.py` answers for it.

The first three classes observe the signs of life of one worker. Times are monotonic nanoseconds, 0 for none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import proc, processes, tcp
from ajhost.core import liveness_rules
from ajhost.core.liveness_rules import LifeSign, Observation, Starvation, Verdict
from ajhost.core.recovery_rules import earliest_deadline
from ajhost.core.report_throttle import StacksGate
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
from ajhost.roles.supervisor.overdue_answers import TICK_NS, OverdueAnswers
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")
_NEVER_BEAT_NS = nanoseconds(FIRST_HEARTBEAT_LIMIT)
_FIRST_SEEN_NS = nanoseconds(HEARTBEAT_MISSED + CHECK_INTERVAL_CALM)
"""The age at which a missed heartbeat is seen at the latest, unless this process was held up itself."""
_NO_BETTER_ANEW = (ConnectionState.SUBSCRIBED, ConnectionState.LOCKED_OUT)
"""States of a connection that a new worker would not improve."""


class Heartbeats:
    """`age`, `starved`, `stalled` and `unseen` are those of an `Observation`; all but the first are 0 until a heartbeat
    is missed.
    """

    def __init__(self) -> None:
        self.age = self.starved = self.stalled = self.unseen = 0
        self._starvation: Starvation | None = None
        self._looked_ns = 0

    def look(self, worker: WorkerProcess, now_ns: int) -> None:
        """Observes a worker. Call it at each check."""
        self.age = now_ns - worker.heartbeat_ns
        if self.age <= liveness_rules.MISSED_NS:
            self._starvation, self.starved, self.stalled, self.unseen = None, 0, 0, 0
        else:
            if self._starvation is None:
                # what kept this process from looking earlier kept the worker from writing heartbeats as well
                self._starvation, self.unseen = Starvation(), max(self.age - _FIRST_SEEN_NS, 0)
            self._starvation.observe(proc.thread_times(worker.pid), now_ns)
            self.starved = self._starvation.starved_ns
            self.stalled += min(now_ns - self._looked_ns, liveness_rules.STALE_NS)  # as far as this process ran
            if self.stalled > liveness_rules.STALLED_NS:
                # a long turn of the loop in which task after task begins is no hang
                self.stalled = min(self.stalled, max(now_ns - worker.ledger.last_start_ns(), 0))
        self._looked_ns = now_ns


class Reading:
    """The observations of whether a worker reads its connection."""

    def __init__(self) -> None:
        self.beats = 0
        """Its heartbeats while bytes have waited that it does not read."""
        self._waiting_since_ns = self._beat_ns = 0
        self._position = (0, 0)
        """Epoch and stream position at the last check."""

    def unread_ns(self, worker: WorkerProcess, now_ns: int) -> int:
        """Returns for how long bytes have waited in its connection that it does not read, though it has room.

        Of a connection that it can read no more, bytes are due at any moment.
        """
        words, sock = worker.ledger.words, worker.sock
        position = words[Word.EPOCH], words[Word.RECEIVED_POS]
        waits = (
            sock is not None
            and worker.epoch == words[Word.EPOCH]
            and words[Word.SOCKET]  # 0: it has given this connection up
            and not words[Word.READING_PAUSED]
            and (words[Word.SOCKET_LOST] == worker.epoch or tcp.unread(sock) > 0)
        )
        if not waits:
            self._waiting_since_ns = 0
        elif not self._waiting_since_ns or self._position != position:
            self._waiting_since_ns, self.beats = now_ns, 0
        elif worker.heartbeat_ns != self._beat_ns:
            self.beats += 1
        self._beat_ns, self._position = worker.heartbeat_ns, position
        return now_ns - self._waiting_since_ns if self._waiting_since_ns else 0


class Membership:
    """The observations of whether a worker is in the queue group."""

    def __init__(self) -> None:
        self.outside_since_ns = 0
        self._epoch = 0

    def outside_ns(self, worker: WorkerProcess, now_ns: int, others_since_ns: int, *, hangs: bool) -> int:
        """Returns for how long it has been out of the queue group while another process of the host was connected.

        A worker that the server locks out does not count: a new one would be locked out as well, and this one keeps
        trying. `others_since_ns`: since when another process is connected.
        """
        words = worker.ledger.words
        # a hanging worker that has connected is about to subscribe: a takeover would only cut the new connection
        reconnected = hangs and self._epoch != words[Word.EPOCH]
        self._epoch = words[Word.EPOCH]
        if words[Word.PHASE] != Phase.SERVING or words[Word.CONNECTION] in _NO_BETTER_ANEW:
            self.outside_since_ns = 0
            return 0
        if not self.outside_since_ns or reconnected:
            self.outside_since_ns = now_ns
        return now_ns - max(self.outside_since_ns, others_since_ns) if others_since_ns else 0


@dataclass(slots=True)
class _Hang:
    since_ns: int
    epoch: int
    """The connection on which it hangs."""
    ran_ns: int = 0
    """When a task of it was last seen to run."""
    stacks_at: float = 0.0
    """When it was asked for its stacks before SIGKILL, in monotonic seconds."""


@dataclass(slots=True)
class _Watched:
    """What earlier checks have found out about one worker."""

    heartbeats: Heartbeats = field(default_factory=Heartbeats)
    reading: Reading = field(default_factory=Reading)
    membership: Membership = field(default_factory=Membership)
    hang: _Hang | None = None
    patience_ns: int = liveness_rules.STALE_NS
    """It hangs when its last heartbeat is older than this."""


Event = Callable[[WorkerProcess], None]


class LivenessMonitor:
    def __init__(self, standby: Standby, guard: FaultGuard, on_hang: Event, on_hang_ended: Event) -> None:
        """`on_hang` is called for each connection that a worker hangs on, `on_hang_ended` for each hang that ends."""
        self._standby, self._guard, self._on_hang, self._on_hang_ended = standby, guard, on_hang, on_hang_ended
        self._watched: dict[int, _Watched] = {}
        self.calm = False
        """Whether no worker hung or had missed a heartbeat at the last check."""
        self._overdue = OverdueAnswers(standby)
        self._stacks = StacksGate(standby.ledger.words[Word.STACKS_TOLD :])
        self._connected_since_ns = self._took_over_ns = 0

    def check(self, workers: list[WorkerProcess], kill_grace: float, import_timeout: float, late: float) -> None:
        """Checks every worker that lives. `late`: how many seconds late this tick is."""
        now = time.monotonic()
        self.calm = True
        living = [worker for worker in workers if worker.pid and not worker.dead]
        for serial in self._watched.keys() - {worker.serial for worker in living}:
            del self._watched[serial]
            self._overdue.forget(serial)
        self._note_connected(living, now)
        never_beat_ns = max(_NEVER_BEAT_NS, int(import_timeout * 1e9))
        for worker in living:
            # a ledger that cannot be read must not keep the other workers from being checked
            with self._guard("keeping the deadlines of a worker"):
                self._keep_deadlines(worker, now, late)
            with self._guard("judging a worker"):
                self._check_worker(worker, now, kill_grace, never_beat_ns)

    def _note_connected(self, living: list[WorkerProcess], now: float) -> None:
        """Notes since when any process of this host is connected: from then on the others could be as well."""
        states = [worker.ledger.words[Word.CONNECTION] for worker in living]
        if not self._standby.connection.up.is_set() and ConnectionState.SUBSCRIBED not in states:
            self._connected_since_ns = 0
        elif not self._connected_since_ns:
            self._connected_since_ns = int(now * 1e9)

    def _keep_deadlines(self, worker: WorkerProcess, now: float, late: float) -> None:
        """Answers what is past its deadline, also after this process was held up itself."""
        hangs, now_ns = worker.hangs, int(now * 1e9)
        answered = self._overdue.check(
            worker.ledger,
            now_ns,
            TICK_NS if hangs else 0,
            on_time=late <= CHECK_ON_TIME,
            heartbeat_ns=0 if hangs else worker.heartbeat_ns,
            still=lambda: processes.standing_still(worker.pidfd, worker.pid, STOP_LIMIT),
        )
        if answered and hangs and self._stacks.take(f"slot {worker.slot}", now_ns):
            _log.warning("%s hangs, and a task of it is at its deadline: its stacks follow", worker)
            worker.ask_for_stacks()
            asyncio.get_running_loop().call_later(STACKS_BEFORE_KILL, _log_stacks, worker, logging.WARNING)

    def _check_worker(self, worker: WorkerProcess, now: float, kill_grace: float, never_beat_ns: int) -> None:
        watched = self._watched.setdefault(worker.serial, _Watched())
        now_ns = int(now * 1e9)
        seen = self._observe(worker, watched, now_ns, kill_grace, never_beat_ns)
        if liveness_rules.missing(seen) is LifeSign.HEARTBEAT:
            # recovery takes its connection while its loop does not run: it cannot connect again before the loop does
            watched.membership.outside_since_ns = now_ns
        verdict = liveness_rules.judge(seen)
        self.calm = self.calm and verdict is Verdict.ALIVE
        match verdict:
            case Verdict.HUNG if watched.hang is None or seen.reconnected:
                self._found_hanging(worker, watched, seen, now_ns)
            case Verdict.HANG_ENDED if watched.hang is not None:
                self._found_hang_ended(worker, watched, watched.hang, now_ns)
            case Verdict.EXPIRED if watched.hang is not None:
                self._expire(worker, watched.hang, now)

    def _observe(
        self, worker: WorkerProcess, watched: _Watched, now_ns: int, kill_grace: float, never_beat_ns: int
    ) -> Observation:
        beats, hang = watched.heartbeats, watched.hang
        beats.look(worker, now_ns)
        left = 0
        if hang is not None:
            if (due_ns := earliest_deadline(worker.ledger, now_ns)) is not None:
                hang.ran_ns = now_ns
            else:
                # nothing runs: a worker whose last task has just ended is about to write its heartbeat
                due_ns = max(hang.since_ns, hang.ran_ns)
            left = due_ns + int(kill_grace * 1e9) - now_ns
        return Observation(
            age=beats.age,
            patience=watched.patience_ns if worker.has_beaten else never_beat_ns,
            starved=beats.starved,
            stalled=beats.stalled if worker.has_beaten else 0,
            unseen=beats.unseen,
            unread=watched.reading.unread_ns(worker, now_ns),
            unread_beats=watched.reading.beats,
            unsubscribed=watched.membership.outside_ns(
                worker, now_ns, self._connected_since_ns, hangs=hang is not None
            ),
            hung=hang is not None,
            reconnected=hang is not None and hang.epoch != worker.ledger.words[Word.EPOCH],
            subscribed=worker.subscribed,
            left=left,
        )

    def _found_hanging(self, worker: WorkerProcess, watched: _Watched, seen: Observation, now_ns: int) -> None:
        sign = liveness_rules.missing(seen)
        if sign is None:
            return  # it hung, and has not subscribed again yet
        if not liveness_rules.may_take_over(seen, now_ns - self._took_over_ns):
            return
        self._took_over_ns = now_ns
        # again: it ran for a moment, connected anew, and is held up by another task
        again = "" if watched.hang is None else " again"
        watched.hang, worker.hangs = _Hang(now_ns, worker.ledger.words[Word.EPOCH]), True
        _log.warning("%s hangs%s: %s", worker, again, self._why(worker, sign, seen))
        self._on_hang(worker)

    @staticmethod
    def _why(worker: WorkerProcess, sign: LifeSign, seen: Observation) -> str:
        if sign is LifeSign.HEARTBEAT:
            had = max(seen.age - seen.starved - seen.unseen, 0) / 1e9
            short = (
                f" of the time that it had, {seen.age / 1e9:.2f} s in all"
                if seen.starved >= liveness_rules.STARVED_NS
                else ""
            )
            return f"no beat for {had:.2f} s{short}"
        used, limit = proc.descriptors(worker.pid)
        full = f"; too many open files: {used} of {limit}" if 0 < limit <= used + 1 else ""
        return f"{sign.value}{full}"

    def _found_hang_ended(self, worker: WorkerProcess, watched: _Watched, hang: _Hang, now_ns: int) -> None:
        if now_ns - hang.since_ns < 2 * liveness_rules.STALE_NS:  # a false alarm: this worker gets more time
            watched.patience_ns = min(watched.patience_ns * 2, liveness_rules.LONGEST_STALE_NS)
        watched.hang, worker.hangs = None, False
        _log.warning("%s goes on after hanging", worker)
        self._on_hang_ended(worker)

    def _expire(self, worker: WorkerProcess, hang: _Hang, now: float) -> None:
        if not hang.stacks_at:
            hang.stacks_at = now
            _log.error("%s hangs past the kill grace: its stacks follow, then SIGKILL", worker)
            worker.ask_for_stacks()
        elif now - hang.stacks_at >= STACKS_BEFORE_KILL:
            _log_stacks(worker, logging.ERROR)
            worker.kill()


def _log_stacks(worker: WorkerProcess, level: int) -> None:
    if not worker.dead and (stacks := worker.stacks()):
        _log.log(level, "the stacks of %s:\n%s", worker, stacks)
