"""From its arrival to its first instruction a request is nobody's yet: real admission, ledgers, threads and kills."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.channel import Channel, pair
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.api import Task
from ajhost.core.host_counters import Counters
from ajhost.core.recovery_rules import Fact, classify, overdue
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import Identity, State
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.protocol.frames import scan
from ajhost.protocol.outcome import Failed
from ajhost.protocol.request_headers import known_deadline
from ajhost.protocol.task_record import read_task
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.messages import GenerationSpec, WorkerSpec
from ajhost.roles.shared_queue.token_queues import DEFAULT, TokenQueue, open_queue
from ajhost.roles.supervisor.recovery.answer_and_requeue import AnswerAndRequeue
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.worker.composition import WorkerParts
from ajhost.roles.worker.request import BEGINNING
from ajhost.settings.sections import HandlerSettings, NatsSettings, PythonSettings, WorkerSettings
from tests.support.host_parts import DIED, FAR, GEOMETRY, STANDBY, HostParts, QueueOwner, body, enqueue, frame, lying
from tests.support.killed_child import Act, Killed
from tests.support.waiting import until


class IntakeHarness(WorkerParts):
    """A worker's parts without a connection: the transport's part is played. `replies`: what would be sent, by entry.

    `directory`: of the ledgers, with one of the supervisor's.
    """

    flooded = False

    def __init__(
        self,
        directory: Path,
        serial: int,
        queues: Sequence[TokenQueue],
        channel: Channel,
        handler: Callable[[Task], Any],
    ) -> None:
        spec = GenerationSpec(
            1,
            directory.parent,
            NatsSettings(),
            PythonSettings(),
            WorkerSettings(count=1, concurrency=4, backlog=100),
            (HandlerSettings("t", "m:f"),),
        )
        handlers = {"t": LoadedHandler("t", "m:f", handler, inspect.iscoroutinefunction(handler))}
        ledger, supervisor = LockedLedger(directory, serial), MappedLedger(directory, STANDBY)
        super().__init__(spec, WorkerSpec(0, serial, 1, STANDBY), handlers, queues, channel, ledger, supervisor)
        self.watchdog.horizon = math.inf  # nobody here needs a timer that ends the process
        self.responder.out = self
        self.chunk = ReceiveBuffer(ledger)
        self.chunk.reset()
        self.replies: dict[int, bytes] = {}

    def reply(self, index: int, data: bytes, asked_at: float = 0.0) -> None:
        """`Out`: the reply of an entry."""
        self.replies[index] = data

    def publish(self, data: bytes) -> None:
        raise AssertionError("each request here has an entry")

    def receive(self, *replies: bytes) -> list[int]:
        """What the transport does with requests; their entries."""
        data = b"".join(map(frame, replies))
        self.before_buffer_reuse()
        self.chunk.free_space(0)[: len(data)] = data
        self.chunk.commit(len(data))
        place, found = self.chunk.place(), scan(data)
        requests = self.ledger.receive_all(place, found.messages, 1)
        self.chunk.consume(found.end)
        self.intake.admit(data, requests)
        return [index for index, _ in requests]

    def before_buffer_reuse(self) -> None:
        """What the transport does before it receives again."""
        for request in tuple(self.transport.in_buffer):
            request.count_as_started()

    def state(self, index: int) -> State:
        """Where an entry stands."""
        return State(self.ledger.state(index)[1])

    async def idle(self) -> None:
        """Returns when nothing runs."""
        await until(lambda: not self.executor.busy)


@pytest.fixture
def queues() -> Iterator[list[TokenQueue]]:
    made = [open_queue(DEFAULT)]
    yield made
    for queue in made:
        queue.close()


NewWorker = Callable[[Callable[[Task], Any]], IntakeHarness]


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A worker's end of a channel, to a supervisor that says nothing."""
    ours, theirs = pair()
    with ours, theirs:
        yield Channel(ours)


@pytest.fixture
async def worker(tmp_path: Path, queues: list[TokenQueue], channel: Channel) -> NewWorker:
    """`one = worker(handler)`, once."""
    directory = tmp_path / "ledger"
    directory.mkdir()
    for serial in (1, STANDBY):
        ledger_file.make(directory, GEOMETRY, Identity(serial, 0, 1))
    return lambda handler: IntakeHarness(directory, 1, queues, channel, handler)


async def test_what_came_together_starts_one_after_the_other(worker: NewWorker) -> None:
    seen = []

    async def handler(task: Task) -> None:
        seen.append([one.state(index) for index in indexes])

    one = worker(handler)
    indexes = one.receive(b"R.0", b"R.1", b"R.2")
    assert [one.state(index) for index in indexes] == [State.RECEIVED] * 3
    assert all(entry.deadline_ns for entry in one.ledger.used()), "overdue, the supervisor answers"
    assert len(overdue(one.ledger, FAR)) == 3
    await one.idle()
    received, started, answered = State.RECEIVED, State.STARTED, State.ANSWERED
    assert seen == [
        [started, received, received],
        [answered, started, received],
        [answered, answered, started],
    ]
    assert one.replies.keys() == set(indexes)


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_what_lies_in_the_chunk_counts_as_started_when_that_is_overwritten(worker: NewWorker, kind: str) -> None:
    gate, ran = threading.Event(), []

    async def on_loop(task: Task) -> None:
        ran.append(task.id)

    def in_thread(task: Task) -> None:
        gate.wait()
        ran.append(task.id)

    one = worker(on_loop if kind == "loop" else in_thread)
    first = one.receive(b"R.0", b"R.1")
    second = one.receive(b"R.2")
    assert [one.state(index) for index in first] == [State.STARTED] * 2
    if kind == "loop":
        assert one.state(second[0]) is State.RECEIVED
    gate.set()
    await one.idle()
    assert len(ran) == 3
    assert [one.state(index) for index in first + second] == [State.ANSWERED] * 3


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_what_was_taken_away_before_it_began_is_not_run_and_its_entry_is_free(
    worker: NewWorker, kind: str
) -> None:
    ran = []

    async def on_loop(task: Task) -> None:
        ran.append(task.id)

    one = worker(on_loop if kind == "loop" else lambda task: ran.append(task.id))
    with BEGINNING:  # no thread begins meanwhile
        taken, kept = one.receive(b"R.0", b"R.1")
        one.ledger.revoke(taken, one.ledger.state(taken)[0])
    await one.idle()
    assert len(ran) == 1
    assert one.replies.keys() == {kept}
    assert one.state(taken) is State.FREE
    assert one.ledger.held == 1


async def test_a_deadline_before_the_beginning_is_answered_for_unless_somebody_else_has_it(worker: NewWorker) -> None:
    async def handler(task: Task) -> None:
        raise AssertionError("it never begins")

    one = worker(handler)
    mine, taken = one.receive(b"R.0", b"R.1")
    one.ledger.revoke(taken, one.ledger.state(taken)[0])
    one.intake.give_up("draining: here")
    await one.idle()
    assert list(one.replies) == [mine]
    assert b"draining: here" in one.replies[mine]
    assert one.ledger.entry(mine).reply == b"R.0"
    assert one.state(taken) is State.FREE


@pytest.mark.parametrize("begun_elsewhere", [False, True])
async def test_a_request_that_waits_is_cancelled_unless_a_consumer_has_just_begun_it(
    worker: NewWorker, monkeypatch: pytest.MonkeyPatch, begun_elsewhere: bool
) -> None:
    async def handler(task: Task) -> None:
        raise AssertionError("it never begins here")

    one = worker(handler)
    one.executor.capacity = 0
    (index,) = one.receive(b"R.0")
    assert one.state(index) is State.QUEUED
    waiting = one.producer.waiting

    def begun_while_we_look() -> list[int]:
        found = list(waiting())
        if begun_elsewhere:
            one.ledger.claim(index, one.ledger.state(index)[0])
        return found

    monkeypatch.setattr(one.producer, "waiting", begun_while_we_look)
    told = one.intake.cancel("0", Failed("cancelled: here"))
    assert (told, list(one.replies)) == (("", []) if begun_elsewhere else ("waiting", [index]))


async def test_a_request_that_was_given_to_somebody_else_is_not_cancelled_here(worker: NewWorker) -> None:
    async def handler(task: Task) -> None:
        raise AssertionError("it never begins here")

    one = worker(handler)
    (taken,) = one.receive(b"R.0")
    one.ledger.revoke(taken, one.ledger.state(taken)[0])
    assert (one.intake.cancel("0", Failed("cancelled: here")), one.replies) == ("", {})
    await one.idle()


async def test_a_thread_and_the_loop_never_begin_the_same_request_twice(
    worker: NewWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    starts = []
    real = LockedLedger.start

    def slowly(self: LockedLedger, index: int, *rest: Any) -> bool:
        starts.append(index)
        entered.set()
        go_on.wait()
        return real(self, index, *rest)

    monkeypatch.setattr(LockedLedger, "start", slowly)
    one = worker(lambda task: None)
    (index,) = one.receive(b"R.0")
    await until(entered.is_set)
    threading.Timer(0.05, go_on.set).start()
    one.before_buffer_reuse()  # waits for the thread
    assert one.state(index) is State.STARTED
    await one.idle()
    assert starts == [index]
    assert one.state(index) is State.ANSWERED


# --- kills between any two instructions


def starter(parts: HostParts, serial: int, replies: list[bytes], kind: str) -> Act:
    """A worker that receives requests, or pulls what it or another has enqueued, and runs them one after the other."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        asyncio.run(_start(parts, serial, replies, kind, tell, watch))

    return act


async def _start(
    parts: HostParts,
    serial: int,
    replies: list[bytes],
    kind: str,
    tell: Callable[[bytes], None],
    watch: Callable[[Callable[[], object]], None],
) -> None:
    ran = []

    async def handler(task: Task) -> None:
        ran.append(task.id)
        tell(replies[len(ran) - 1])

    ours, _ = pair()
    one = IntakeHarness(parts.directory, serial, parts.queues, Channel(ours), handler)
    if kind == "own":
        for number, reply in enumerate(replies):
            assert enqueue(one.ledger, one.producer, reply) == number
    watch(lambda: (bytes(one.ledger.view), lying(parts.queues[0]), len(ran)))
    if kind == "received":
        one.receive(*replies)
    else:
        one.consumer.begin()
    await one.idle()


@pytest.mark.parametrize("kind", ["received", "own", "pulled"])
async def test_a_worker_killed_between_any_two_instructions_answers_for_what_began_and_nothing_else(
    parts: HostParts, kind: str
) -> None:
    other = QueueOwner(parts)

    def prepare(replies: list[bytes]) -> None:
        parts.ran.clear()
        parts.answers.clear()
        for reply in replies if kind == "pulled" else ():
            other.enqueue(reply)

    whole = [b"R.0.0", b"R.0.1"]
    prepare(whole)
    # each child finds the task's type and the header known, and so executes the same instructions
    read_task(body(0))
    known_deadline(b"")
    changes = Killed(starter(parts, parts.new_serial(), whole, kind), 0).changes
    other.producer.expire(1)
    seen = set()
    for kill_at in changes:
        replies, serial = [b"R.%d.%d" % (kill_at, i) for i in range(2)], parts.new_serial()
        prepare(replies)
        killed = Killed(starter(parts, serial, replies, kind), kill_at)
        ledger = MappedLedger(parts.directory, serial)
        began = {entry.reply for entry in classify(ledger).answer}
        if kind != "received":  # whose requests are not there before it has received them
            began |= set(killed.told)
        before = len(killed.told)
        await parts.recover(Remains(ledger))
        ledger.close()
        await parts.settle()
        other.producer.expire(1)
        assert other.ledger.held == 0, kill_at
        assert set(killed.told) <= began, "it ran, and nobody answers for it"
        assert len(began) <= before + 1, "nothing counts as started before its turn"
        assert parts.answers == {reply: ["worker died: here"] for reply in began}, kill_at
        here = set(replies) if kind != "received" else set(parts.ran) | began
        assert sorted(parts.ran) == sorted(here - began), kill_at
        assert not parts.standby.ledger.in_use()
        seen.add((len(killed.told), len(began), len(parts.ran)))
    assert seen >= {(0, 0, 2), (0, 1, 1), (1, 1, 1), (1, 2, 0), (2, 2, 0)}


@pytest.mark.parametrize("kind", ["own", "pulled"])
@pytest.mark.parametrize("moment", ["before", "between", "after"])
async def test_a_worker_that_is_relieved_where_a_request_begins_keeps_it_only_if_its_entry_says_so(
    parts: HostParts, channel: Channel, kind: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor looks at one that hangs while it stands still; `between` is after its store of STARTED."""
    other = QueueOwner(parts)
    ran: list[str] = []

    async def handler(task: Task) -> None:
        ran.append(task.id)

    one = IntakeHarness(parts.directory, parts.new_serial(), parts.queues, channel, handler)
    lender = one if kind == "own" else other
    enqueue(lender.ledger, lender.producer, b"R.1")
    real = LockedLedger.start

    def relieve(now: str) -> None:
        if now == moment:
            hung = Remains(MappedLedger(parts.directory, one.ledger.serial), Fact.OWNER_STOPPED)
            steps = AnswerAndRequeue(parts.standby, parts.ledgers, DIED, Counters())
            steps.answer_started(hung, set())
            steps.requeue_tokens(hung)

    def start(self: LockedLedger, *arguments: Any) -> bool:
        relieve("before")
        mine = real(self, *arguments)
        relieve("between")
        return mine

    monkeypatch.setattr(LockedLedger, "start", start)
    one.consumer.begin()
    await one.idle()
    one.consumer.end()
    monkeypatch.undo()
    relieve("after")
    await parts.settle()
    other.producer.expire(1)
    assert (ran, parts.ran) == (([], [b"R.1"]) if moment == "before" else (["0"], []))
    assert parts.answers == {}
    assert other.ledger.held == 0


async def test_a_worker_that_dies_where_it_learns_that_its_request_was_moved_is_not_answered_for(
    parts: HostParts,
) -> None:
    other = QueueOwner(parts)
    owner, index = other.ledger, other.enqueue(b"R.1")
    dead = LockedLedger(parts.directory, parts.new_serial())
    owner.revoke(index, 1)
    dead.start(dead.start_pulled(1), 1, b"R.1", b"i", b"t", 0, 1, (owner.serial, index, 1))
    remains = Remains(MappedLedger(parts.directory, dead.serial))
    AnswerAndRequeue(parts.standby, parts.ledgers, DIED, Counters()).answer_started(remains, set())
    assert remains.answered == 0
    assert not owner.is_claimed(index, 1)
    assert classify(dead).answer == ()


async def test_a_worker_that_goes_on_while_somebody_is_about_to_answer_for_it_is_left_alone(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It overwrites its chunk then, and what is read there may be another request."""
    owner = LockedLedger(parts.directory, parts.new_serial())
    owner.view[owner.chunk_at : owner.chunk_at + 200] = (frame(b"R.1") + bytes(200))[:200]
    index = owner.receive(owner.chunk_at, len(frame(b"R.1")), 1)
    owner.set_deadline(index, 1)
    real = LockedLedger.frame

    def meanwhile(self: LockedLedger, which: int) -> bytes:
        owner.start(index, 1, b"R.1", b"i", b"t", 0, 1)
        owner.view[owner.chunk_at : owner.chunk_at + 200] = (frame(b"R.2") + bytes(200))[:200]
        return real(self, which)

    (entry,) = overdue(owner, 2)
    with monkeypatch.context() as patch:
        patch.setattr(LockedLedger, "frame", meanwhile)
        parts.standby.answer_for(owner, entry, Failed("deadline exceeded: here"))
    await parts.settle()
    assert parts.answers == {}
    assert not owner.is_revoked(index, 1)


@pytest.mark.parametrize("asked_after", [0.0, 1.0])
async def test_only_what_came_before_a_servers_restart_is_refused_more_than_once(
    parts: HostParts, asked_after: float
) -> None:
    out, now = parts.standby.transport.out, time.monotonic()
    RestartWindow(parts.standby.ledger).open(now, 10.0)
    out.confirm()
    owner = LockedLedger(parts.directory, parts.new_serial())
    came = int((now - 0.5 + asked_after) * 1e9)
    owner.view[owner.chunk_at : owner.chunk_at + len(frame(b"R.1"))] = frame(b"R.1")
    index = owner.receive(owner.chunk_at, len(frame(b"R.1")), came)
    parts.standby.answer_for(owner, owner.entry(index), Failed("deadline exceeded: here"))
    copy = parts.standby.copy(frame(b"R.2"), came)
    assert copy is not None
    parts.standby.reject_waiting("draining: here")
    parts.standby.enqueue(copy)
    out.flush()
    await until(lambda: len(parts.answers) == 2)
    assert out.retransmit.repeating == (not asked_after)
