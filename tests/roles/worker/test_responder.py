"""An answer is counted when it leaves its process, so that the statistics are true whenever that process dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.api import Task
from ajhost.core.route_stats import RouteStats, StatsWriter, file_size, read
from ajhost.ledger.layout import Geometry, Identity, State, create
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.task_record import encode_task, read_task
from ajhost.roles.attempt_records import Attempts
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.supervisor.answer_records import AnswerRecords
from ajhost.roles.worker.request import Request
from ajhost.roles.worker.responder import Responder
from ajhost.roles.worker.routes import Route
from tests.support.host_parts import frame

GEOMETRY = Geometry(entries=8, chunk=8192, store=4096)
RECORD = read_task(encode_task(id="1", type="email:new", queue="DEFAULT", payload=b"", created_ns=1, tried_ns=1))


HANDLER = LoadedHandler("email", "mail:send", lambda task: None, True)


def begun(responder: Responder, index: int) -> Request:
    """A request that came at 0.5 s and has STARTED at 1.0 s."""
    task = Task(RECORD, 60.0, None, None)
    request = Request(responder, index, b"R.1", RECORD, task, Route(0, HANDLER, ""), 60.0, 0.5)
    request.begun = 1.0
    return request


class ResponderHarness:
    """A worker's responder; `replies` are queued, and have not left."""

    flooded = False

    def __init__(self) -> None:
        memory = memoryview(bytearray(GEOMETRY.size))
        create(memory, GEOMETRY, Identity(1, 0, 1))
        self.ledger = LedgerWriter(memory)
        self.memory = bytearray(file_size(1))
        attempts = Attempts(StatsWriter(memoryview(self.memory), ("email",)), ["email"], log_completed=False)
        self.responder = Responder(self.ledger, self, set(), attempts)
        self.replies: list[bytes] = []

    def reply(self, index: int, data: bytes, asked_at: float = 0.0) -> None:
        self.replies.append(data)

    def publish(self, data: bytes) -> None:
        raise AssertionError("each request here has an entry")

    def answer(self, outcome: Outcome) -> int:
        index = self.ledger.receive(0, len(frame(b"R.1")), 1)
        self.ledger.start(index, 1, b"R.1", b"1", b"email:new", 0, 1)
        self.responder.answer(begun(self.responder, index), outcome)
        return index

    @property
    def stats(self) -> RouteStats:
        return read(bytes(self.memory))["email"]


@pytest.mark.parametrize("outcome", [Completed(b"r"), Terminated("no"), Failed("handler error: x")])
def test_an_answer_is_counted_when_it_leaves_and_once(outcome: Outcome) -> None:
    worker = ResponderHarness()
    worker.answer(outcome)
    assert worker.replies
    assert worker.stats.answered == 0
    worker.responder.count()
    worker.responder.count()
    counts = worker.responder.counts
    assert worker.stats.answered == counts.completed + counts.terminated + counts.failed == 1
    assert (worker.stats.running.count, worker.stats.waiting.total) == (1, 0.5)
    # seconds here, whole microseconds in the file
    assert counts.busy == pytest.approx(worker.stats.running.total, abs=1e-6)
    assert counts.busy > 0


def test_what_a_worker_dies_with_before_it_left_is_counted_as_what_it_is_answered(tmp_path: Path) -> None:
    worker, runtime = ResponderHarness(), tmp_path
    index = worker.answer(Completed(b"r"))
    answered = AnswerRecords(runtime, ["email"], lambda tell: None)
    entry = worker.ledger.entry(index)
    assert entry.state is State.ANSWERED
    answered.begun(worker.ledger, entry, Failed("worker died: signal 9"))
    (file,) = (runtime / "stats").glob("*.stats")
    assert read(file.read_bytes())["email"].failed["worker died"] == 1
    assert worker.stats.answered == 0


def test_what_the_supervisor_answered_while_its_worker_hung_is_not_counted_by_the_worker() -> None:
    worker = ResponderHarness()
    index = worker.ledger.receive(0, 1, 1)
    worker.ledger.start(index, 1, b"R.1", b"1", b"email:new", 0, 1)
    worker.ledger.revoke(index, worker.ledger.entry(index).seq)
    worker.responder.answer(begun(worker.responder, index), Completed(b"r"))
    worker.responder.count()
    assert (worker.replies, worker.stats.answered, worker.responder.counts.completed) == ([], 0, 0)
