"""Answers the requests of a worker: first in the ledger entry, then by the reply. Counts each before it leaves."""

from __future__ import annotations

import time
from typing import Protocol

from ajhost.adapters.logs.log_record import Labelled
from ajhost.adapters.nats.interfaces import InBuffer
from ajhost.core.route_stats import TaskTimes
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reply_encoding import encode_reply, encode_result, result_too_large
from ajhost.protocol.task_record import TaskRecord
from ajhost.roles.attempt_records import Attempts
from ajhost.roles.request_check import NOTHING_KNOWN, About
from ajhost.roles.worker.routes import Route


class Out(Protocol):
    """The writer of replies (`adapters.nats.reply_writer.ReplyWriter`)."""

    flooded: bool
    """Whether too many bytes wait to leave."""

    def reply(self, index: int, data: bytes, asked_at: float = 0.0) -> None:
        """Sends a reply, and releases its ledger entry once the server has confirmed it."""

    def publish(self, data: bytes) -> None:
        """Sends a reply that has no entry."""


class Counts:
    """Counters of this worker since its start, copied to its ledger at each heartbeat."""

    __slots__ = ("busy", "completed", "dequeued", "enqueued", "failed", "received", "refused", "terminated")

    def __init__(self) -> None:
        self.received = self.completed = self.failed = self.terminated = 0
        self.refused = self.enqueued = self.dequeued = 0
        self.busy = 0.0


class Started(Labelled, Protocol):
    """A request that has begun, or that is answered for as if it had (`roles.worker.request.Request`)."""

    index: int
    reply: bytes
    record: TaskRecord
    route: Route
    begun: float
    came: float
    logged: bool


class Responder:
    """The part that answers requests, and counts and logs what became of them.

    `max_payload`: the server's limit in bytes. `in_buffer`: requests that have not begun and whose frames lie in the
    receive buffer.
    """

    __slots__ = (
        "_attempts",
        "_completed",
        "_logs_completed",
        "_not_completed",
        "counts",
        "in_buffer",
        "ledger",
        "max_payload",
        "out",
    )  # fmt: skip

    def __init__(self, ledger: LedgerWriter, out: Out, in_buffer: set[InBuffer], attempts: Attempts) -> None:
        self.ledger = ledger
        self.out, self.in_buffer = out, in_buffer
        self._attempts, self._logs_completed = attempts, attempts.logs_completed
        self._completed: list[TaskTimes] = []
        self._not_completed: list[tuple[int, Outcome, float, float]] = []
        """Answers that have not left yet, and so are not counted."""
        self.counts = Counts()
        self.max_payload = 1 << 20

    def answer(self, request: Started, outcome: Outcome) -> None:
        """Gives the one answer to a request that is STARTED."""
        now, index = time.monotonic(), request.index
        if not self.ledger.answer(index):
            self.ledger.release(index)  # the supervisor answered while this worker hung
            return
        came, begun, size = request.came, request.begun, request.record.size
        if type(outcome) is Completed:
            data = encode_result(request.reply, outcome.body, self.max_payload, size)
            if data:
                self.out.reply(index, data, came)
                self._completed.append((request.route.index, begun - came, now - begun))
                if self._logs_completed:
                    self._attempts.ended(request, outcome, logged=False)
                return
            outcome = result_too_large(len(outcome.body), self.max_payload, size)
        self.out.reply(index, encode_reply(request.reply, outcome, self.max_payload, size), came)
        self._not_completed.append((request.route.index, outcome, begun - came, now - begun))
        self._attempts.ended(request, outcome, logged=request.logged)

    def count(self) -> None:
        """Counts what has been answered since the last call. Called right before the replies leave.

        So an answer is counted by the time its requester has it. If this process dies before that, the supervisor
        answers, and counts, in its place.
        """
        counts, completed = self.counts, self._completed
        if completed:
            self._completed = []
            counts.completed += len(completed)
            counts.busy += self._attempts.stats.completed(completed)
        if self._not_completed:
            for route, outcome, waited, ran in self._not_completed:
                if type(outcome) is Terminated:
                    counts.terminated += 1
                else:
                    counts.failed += 1
                counts.busy += ran
                self._attempts.count(route, outcome, waited, ran)
            self._not_completed.clear()

    def take_back(self, index: int, before: type[Outcome], outcome: Failed | Terminated) -> None:
        """Corrects the counts: the router gets `outcome` instead of the answer `before`, which was counted."""
        entry, counts = self.ledger.entry(index), self.counts
        if before is Failed or entry.refused:
            return
        if before is Completed:
            counts.completed -= 1
        else:
            counts.terminated -= 1
        if type(outcome) is Terminated:
            counts.terminated += 1
        else:
            counts.failed += 1
        self._attempts.take_back(entry, before, outcome)

    def refuse(
        self,
        index: int,
        reply: bytes,
        text: str,
        about: About = NOTHING_KNOWN,
        kind: type[Failed | Terminated] = Failed,
    ) -> bool:
        """Answers a request that has not started. False, and no answer, if the supervisor has moved it."""
        received_ns, (record, handler) = self.ledger.received_ns(index), about
        if not self.ledger.refuse(index, reply):
            self.ledger.release(index)
            return False
        self.counts.refused += 1
        data = encode_reply(reply, kind(text), self.max_payload)
        self.out.reply(index, data, self.ledger.asked_at(index))
        self._attempts.refused(handler, text, record, received_ns)
        return True

    def refuse_without_entry(self, reply: bytes, text: str) -> None:
        """Answers a request for which there was no room in the ledger."""
        self.counts.refused += 1
        self._attempts.refused(None, text)
        self.out.publish(encode_reply(reply, Failed(text), self.max_payload))
