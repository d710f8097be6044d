"""Observes the signs of life of one worker, check by check. `core/liveness_rules.py` judges them.

Times are monotonic nanoseconds, 0 for none.
"""

from __future__ import annotations

from ajhost.adapters.linux import proc, tcp
from ajhost.core.liveness_rules import MISSED_NS, STALE_NS, STALLED_NS, Starvation
from ajhost.core.timings import CHECK_INTERVAL_CALM, HEARTBEAT_MISSED, nanoseconds
from ajhost.ledger.connection_status import ConnectionState
from ajhost.ledger.layout import Phase, Word
from ajhost.roles.supervisor.worker_process import WorkerProcess

_FIRST_SEEN_NS = nanoseconds(HEARTBEAT_MISSED + CHECK_INTERVAL_CALM)
"""The age at which a missed heartbeat is seen at the latest, unless this process was held up itself."""
_NO_BETTER_ANEW = (ConnectionState.SUBSCRIBED, ConnectionState.LOCKED_OUT)
"""States of a connection that a new worker would not improve."""


class Heartbeats:
    """`age`, `starved`, `stalled` and `unseen` are those of an `Observation`; all but the first are 0 until a heartbeat
    is missed."""

    def __init__(self) -> None:
        self.age = self.starved = self.stalled = self.unseen = 0
        self._starvation: Starvation | None = None
        self._looked_ns = 0

    def look(self, worker: WorkerProcess, now_ns: int) -> None:
        """Observes a worker. Call it at each check."""
        self.age = now_ns - worker.heartbeat_ns
        if self.age <= MISSED_NS:
            self._starvation, self.starved, self.stalled, self.unseen = None, 0, 0, 0
        else:
            if self._starvation is None:
                # what kept this process from looking earlier kept the worker from writing heartbeats as well
                self._starvation, self.unseen = Starvation(), max(self.age - _FIRST_SEEN_NS, 0)
            self._starvation.observe(proc.thread_times(worker.pid), now_ns)
            self.starved = self._starvation.starved_ns
            self.stalled += min(now_ns - self._looked_ns, STALE_NS)  # as far as this process ran
            if self.stalled > STALLED_NS:
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
        """Returns for how long bytes have waited in its connection that it does not read, though it has room."""
        words, sock = worker.ledger.words, worker.sock
        position = words[Word.EPOCH], words[Word.RECEIVED_POS]
        waits = (
            sock is not None
            and worker.epoch == words[Word.EPOCH]
            and words[Word.SOCKET]  # 0: it has given this connection up
            and not words[Word.READING_PAUSED]
            and tcp.unread(sock) > 0
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
