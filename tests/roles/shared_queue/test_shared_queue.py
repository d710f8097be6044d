"""Producer and consumer: order, room, deadlines, and tokens that are stale, undecided or handed back."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.ledger import writer
from ajhost.ledger.layout import TOKEN_PLACES, Geometry, Identity, State
from ajhost.ledger.queue_token import SIZE, Token, TokenState, check, token_places, unpack
from ajhost.protocol.frames import scan
from ajhost.protocol.task_record import TaskRecord
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Consumer, Origin
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import DEFAULT, TokenQueue, open_queue, queue_names, queue_of
from ajhost.settings.sections import HandlerSettings
from tests.support.host_parts import FAR, frame
from tests.support.waiting import until


def tokens_in(owner: LockedLedger) -> list[Token]:
    return [token for token in map(unpack, token_places(owner)) if token.serial]


# --- producing


class ProducerSide:
    """An owner without a server: what it enqueues, and what is given up."""

    def __init__(self, directory: Path, queues: list[TokenQueue], geometry: Geometry) -> None:
        ledger_file.make(directory, geometry, Identity(7, 0, 1))
        self.queues = queues
        self.ledger = LockedLedger(directory, 7)
        self.expired: list[int] = []
        self.producer = Producer(self.ledger, queues, asyncio.get_running_loop(), self._expire)

    def _expire(self, index: int) -> None:
        self.expired.append(index)
        assert self.ledger.refuse(index, b"R")
        self.ledger.release(index)

    def enqueue(self, number: int, deadline_ns: int = FAR, queue: str = DEFAULT) -> int:
        index = self.ledger.receive_copy(frame(b"R.%d" % number, number), 1)
        assert index is not None
        assert self.producer.enqueue(index, None, queue, deadline_ns)
        return index

    def tokens(self, queue: int = 0) -> list[Token]:
        found = []
        while True:
            try:
                found.append(unpack(self.queues[queue].receive.recv(SIZE)))
            except BlockingIOError:
                return found


@pytest.fixture
async def producing(tmp_path: Path) -> AsyncIterator[ProducerSide]:
    queues = [open_queue(DEFAULT), open_queue("slow")]
    yield ProducerSide(tmp_path, queues, Geometry(512, 4096, 1 << 17))
    for queue in queues:
        queue.close()


async def test_what_others_started_is_given_back_with_its_room(producing: ProducerSide) -> None:
    first, second = producing.enqueue(1), producing.enqueue(2)
    producing.ledger.claim(first, producing.ledger.state(first)[0])
    producing.producer.expire(1)
    assert (producing.producer.count, producing.ledger.held) == (1, 1)
    producing.ledger.revoke(second, producing.ledger.state(second)[0])
    producing.producer.expire(1)
    assert (producing.producer.count, producing.ledger.held, producing.expired) == (0, 0, [])
    assert producing.ledger.store.allocate(1 << 17) is not None, "all of the store is free"


@pytest.mark.parametrize(("now", "given_up"), [(99, 0), (100, 1), (150, 1), (200, 2), (FAR, 3)])
async def test_what_nobody_started_is_given_up_at_its_deadline_once(
    producing: ProducerSide, now: int, given_up: int
) -> None:
    indexes = [producing.enqueue(n, deadline) for n, deadline in enumerate((200, 100, FAR))]
    for _ in range(2):
        producing.producer.expire(now)
    assert sorted(producing.expired) == sorted([indexes[1], indexes[0], indexes[2]][:given_up])
    assert producing.ledger.held == producing.producer.count == 3 - given_up


async def test_a_deadline_that_passes_after_somebody_started_it_is_not_the_owners(
    producing: ProducerSide,
) -> None:
    index = producing.enqueue(1, 100)
    producing.ledger.claim(index, producing.ledger.state(index)[0])
    producing.producer.expire(1000)
    assert producing.expired == []


@pytest.mark.parametrize(("size", "waiting", "remembered"), [(10, 0, True), (9000, 0, False), (10, 256, False)])
async def test_what_its_owner_starts_itself_waits_no_more_and_has_its_room_back(
    producing: ProducerSide, size: int, waiting: int, remembered: bool
) -> None:
    others = [producing.enqueue(number) for number in range(waiting)]
    ledger, data = producing.ledger, b"x" * size
    index = ledger.receive(ledger.chunk_at, size, 1)
    known = (b"R.1", (TaskRecord(), 0, 7.0))
    assert producing.producer.enqueue(index, data, DEFAULT, 100, known)
    assert producing.producer.withdraw(index) == (known if remembered else None)
    assert ledger.frame(index) == data
    assert ledger.start(index, 1, b"R.1", b"i", b"t", 0, 1)
    ledger.drop_frame(index)
    producing.producer.expire(1000)
    assert (producing.expired, producing.producer.count, ledger.state(index)[1]) == (
        [],
        waiting,
        State.STARTED,
    )
    for other in others:
        ledger.claim(other, ledger.state(other)[0])
    producing.producer.expire(1000)
    assert ledger.store.allocate(1 << 17) is not None, "all of the store is free"


async def test_giving_up_ends_all_that_waits(producing: ProducerSide) -> None:
    for number in range(5):
        producing.enqueue(number)
    producing.producer.reject_waiting()
    assert len(producing.expired) == 5
    assert producing.ledger.held == 0


async def test_a_store_without_room_lends_nothing_and_keeps_the_request_as_it_was(
    producing: ProducerSide,
) -> None:
    data = frame(b"R.1")
    producing.ledger.view[producing.ledger.chunk_at : producing.ledger.chunk_at + len(data)] = data
    index = producing.ledger.receive(producing.ledger.chunk_at, len(data), 1)
    assert producing.ledger.store.allocate(1 << 17) is not None
    assert not producing.producer.enqueue(index, data, DEFAULT, FAR)
    assert producing.ledger.state(index)[1] == State.RECEIVED
    assert producing.ledger.frame(index) == data
    assert (producing.producer.count, producing.tokens()) == (0, [])


async def test_a_backlog_is_full_until_others_have_started_some_of_it(producing: ProducerSide) -> None:
    indexes = [producing.enqueue(number) for number in range(3)]
    assert producing.producer.full(3)
    assert not producing.producer.full(4)
    producing.ledger.claim(indexes[1], producing.ledger.state(indexes[1])[0])
    # it looks when it seems to be full, though not for each request of a burst
    await until(lambda: not producing.producer.full(3))


def fill(queue: TokenQueue) -> int:
    """Fills a queue to the last token; how many."""
    count = 0
    while True:
        try:
            queue.send.send(bytes(SIZE))
        except BlockingIOError:
            return count
        count += 1


async def test_what_a_full_queue_has_no_room_for_is_sent_later_in_order(producing: ProducerSide) -> None:
    producing.queues[0].send.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    room = fill(producing.queues[0])
    indexes = [producing.enqueue(number) for number in range(3 * room)]
    ledger = producing.ledger
    assert {ledger.state(i)[1] for i in indexes} == {State.RECEIVED}, "none is said to be on its way"
    came: list[Token] = []

    def drained() -> bool:
        came.extend(token for token in producing.tokens() if token.serial)
        return len(came) == len(indexes)

    await until(drained)
    assert [token.entry for token in came] == indexes
    assert {ledger.state(i)[1] for i in indexes} == {State.QUEUED}


async def test_a_token_that_waited_for_room_is_stale_when_its_entry_is_another_requests(
    producing: ProducerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_RESTING", 0)
    producing.queues[0].send.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    fill(producing.queues[0])
    index = producing.enqueue(1, 100)
    producing.producer.expire(100)
    assert producing.expired == [index]
    assert producing.ledger.receive_copy(frame(b"R.2"), 1) == index
    came: list[Token] = []

    def drained() -> bool:
        came.extend(token for token in producing.tokens() if token.serial)
        return len(came) == 1

    await until(drained)
    assert producing.ledger.state(index) == (2, State.RECEIVED), "what became of the first is not told of the second"
    assert check(came[0], producing.ledger) is TokenState.STALE


async def test_each_lane_has_its_own_tokens_and_an_unknown_one_is_the_general(
    producing: ProducerSide,
) -> None:
    producing.enqueue(1, queue="slow")
    producing.enqueue(2, queue="gone")
    assert [t.seq for t in producing.tokens(1)] == [1]
    assert [t.seq for t in producing.tokens(0)] == [2]
    added = open_queue("new")
    producing.queues.append(added)
    producing.producer.add_queues(producing.queues)
    producing.enqueue(3, queue="new")
    assert [t.seq for t in producing.tokens(2)] == [3]


def test_a_route_with_a_limit_has_a_lane_and_the_others_share_one() -> None:
    handlers = [
        HandlerSettings("b", "m:f", concurrency=1),
        HandlerSettings("a", "m:f"),
        HandlerSettings("", "m:f", concurrency=2),
    ]
    assert queue_names(handlers) == (DEFAULT, "*", "b")
    assert [queue_of(h) for h in handlers] == ["b", DEFAULT, "*"]


# --- consuming


class ConsumerSide:
    """A consumer of the queues of a `ProducerSide`, in a ledger of its own."""

    def __init__(self, directory: Path, queues: list[TokenQueue]) -> None:
        ledger_file.make(directory, Geometry(64, 4096, 4096), Identity(8, 1, 1))
        self.ledger = LockedLedger(directory, 8)
        self.ran: list[int] = []
        self.waiting: list[tuple[ClaimedRequest, int]] = []
        self.entered: list[Origin] = []
        self.hesitates = False
        """Whether what was pulled begins only when it is told to."""
        self.meanwhile: Callable[[], object] = lambda: None
        """What happens when our entry is made, and the owner does not know yet."""
        self.rooms = {queue.name: 100 for queue in queues}
        self.consumer = Consumer(
            self.ledger, directory, queues, asyncio.get_running_loop(), self._room, self._start, self._resume
        )

    def _room(self, queue: str) -> bool:
        return self.rooms[queue] > 0

    def _resume(self, claimed: ClaimedRequest) -> None:
        raise AssertionError("it has enqueued nothing")

    def _start(self, data: bytes, claimed: ClaimedRequest) -> None:
        _, _, begin, end, _, reply = scan(data).messages[0]
        assert end - begin > 2
        for queue in self.rooms:
            self.rooms[queue] -= 1
        self.waiting.append((claimed, int(reply[2:])))
        if claimed.last or not self.hesitates:
            self.begin()

    def begin(self) -> None:
        """Begins what was pulled."""
        for claimed, number in self.waiting:
            if claimed.begin(self._enter):
                self.ran.append(number)
        self.waiting.clear()

    def _enter(self, origin: Origin) -> bool:
        self.entered.append(origin)
        self.meanwhile()
        return True


@pytest.fixture
async def consuming(producing: ProducerSide, tmp_path: Path) -> AsyncIterator[ConsumerSide]:
    made = ConsumerSide(tmp_path, producing.queues)
    yield made
    made.consumer.end()


async def test_what_waits_is_started_in_order_once_a_consumer_begins(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    for number in range(10):
        producing.enqueue(number)
    consuming.consumer.begin()
    assert consuming.ran == list(range(10))


async def test_what_comes_later_is_started_as_it_comes(producing: ProducerSide, consuming: ConsumerSide) -> None:
    consuming.consumer.begin()
    producing.enqueue(5)
    await until(lambda: consuming.ran == [5])


async def test_no_more_is_pulled_than_there_is_room_for(producing: ProducerSide, consuming: ConsumerSide) -> None:
    consuming.rooms[DEFAULT] = 2
    for number in range(4):
        producing.enqueue(number)
    consuming.consumer.begin()
    assert consuming.ran == [0, 1]
    consuming.rooms[DEFAULT] = 1
    consuming.consumer.refresh()
    assert consuming.ran == [0, 1, 2]
    assert len(producing.tokens()) == 1, "the rest is left to others"


async def test_a_queue_without_room_holds_up_no_other(producing: ProducerSide, consuming: ConsumerSide) -> None:
    consuming.rooms["slow"] = 0
    producing.enqueue(1, queue="slow")
    producing.enqueue(2)
    consuming.consumer.begin()
    assert consuming.ran == [2]
    consuming.rooms["slow"] = 1
    consuming.consumer.refresh()
    assert consuming.ran == [2, 1]


async def test_after_the_end_nothing_is_pulled(producing: ProducerSide, consuming: ConsumerSide) -> None:
    consuming.consumer.begin()
    consuming.consumer.end()
    producing.enqueue(1)
    await asyncio.sleep(0)
    consuming.consumer.refresh()
    assert consuming.ran == []
    assert len(producing.tokens()) == 1


@pytest.mark.parametrize("how", ["claimed", "revoked", "released", "reused", "gone", "late", "foreign"])
async def test_a_stale_token_is_dropped_and_the_next_one_is_started(
    producing: ProducerSide, consuming: ConsumerSide, tmp_path: Path, how: str
) -> None:
    ledger = producing.ledger
    index = producing.enqueue(1, time.monotonic_ns() if how == "late" else FAR)
    match how:
        case "claimed":
            ledger.claim(index, 1)
        case "revoked":
            ledger.revoke(index, 1)
        case "released":
            ledger.release(index)
        case "reused":
            ledger.release(index)
            assert ledger.receive_copy(frame(b"R.9"), 1) == index
            ledger.queue(index, 2)
        case "gone" | "foreign":
            producing.queues[0].send.send(Token(99, 0, 1, FAR).pack())
            producing.tokens()
            producing.queues[0].send.send(Token(99, 0, 1, FAR).pack())
            if how == "foreign":
                ledger_file.path_of(tmp_path, 99).write_bytes(b"no ledger")
    producing.enqueue(2)
    consuming.consumer.begin()
    assert consuming.ran == [2]


async def test_a_token_that_is_not_decided_waits_and_is_started_when_it_is(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    index = undecided(producing, 1)
    producing.enqueue(2)
    consuming.consumer.begin()
    assert consuming.ran == []
    assert [token.seq for token in tokens_in(consuming.ledger)] == [1], "it is in shared memory for an heir"
    producing.ledger.queue(index, 1)
    await until(lambda: consuming.ran == [1, 2])


def undecided(producing: ProducerSide, number: int) -> int:
    """A request whose pusher stands between sending and saying so."""
    index = producing.ledger.receive_copy(frame(b"R.%d" % number), 1)
    assert index is not None
    producing.queues[0].send.send(Token(7, index, producing.ledger.state(index)[0], FAR).pack())
    return index


async def test_a_token_that_is_taken_back_before_it_is_decided_is_dropped(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    index = undecided(producing, 1)
    producing.enqueue(2)
    consuming.consumer.begin()
    producing.ledger.revoke(index, 1)
    await until(lambda: consuming.ran == [2])


async def test_a_token_decided_when_there_is_no_room_any_more_is_handed_back(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    index = undecided(producing, 1)
    consuming.consumer.begin()
    consuming.rooms[DEFAULT] = 0
    producing.ledger.queue(index, 1)
    await until(lambda: not tokens_in(consuming.ledger))
    assert consuming.ran == []
    (token,) = producing.tokens()
    assert (token.serial, token.entry, token.seq) == (7, index, 1)


async def test_a_token_that_cannot_be_handed_back_waits_for_room_here_or_there(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    index = undecided(producing, 1)
    consuming.consumer.begin()
    consuming.rooms[DEFAULT] = 0
    producing.ledger.queue(index, 1)
    fill(producing.queues[0])
    assert [token.seq for token in tokens_in(consuming.ledger)] == [1]
    consuming.rooms[DEFAULT] = 1
    await until(lambda: consuming.ran == [1])


async def test_an_undecided_token_is_settled_after_the_end(producing: ProducerSide, consuming: ConsumerSide) -> None:
    index = undecided(producing, 1)
    consuming.consumer.begin()
    consuming.consumer.end()
    producing.ledger.queue(index, 1)
    await until(lambda: consuming.ran == [1])


async def test_an_owner_that_gives_up_while_its_frame_is_copied_is_believed(
    producing: ProducerSide, consuming: ConsumerSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that is stopped between judging a token and reading its frame finds another request's frame there."""
    monkeypatch.setattr(writer, "_RESTING", 0)
    index = producing.enqueue(1)
    real = MappedLedger.frame

    def slowly(self: MappedLedger, which: int) -> bytes:
        if producing.ledger.state(index)[0] == 1:
            producing.producer.reject_waiting()
            assert producing.enqueue(2) == index
        return real(self, which)

    monkeypatch.setattr(MappedLedger, "frame", slowly)
    consuming.consumer.begin()
    await until(lambda: consuming.ran == [2])
    producing.producer.expire(1)
    assert producing.ledger.held == 0


# --- between pulling and starting


async def test_what_was_pulled_is_its_owners_until_it_begins(producing: ProducerSide, consuming: ConsumerSide) -> None:
    consuming.hesitates = True
    indexes = [producing.enqueue(number) for number in range(5)]
    consuming.consumer.begin()
    assert [token.entry for token in tokens_in(consuming.ledger)] == indexes
    assert not any(producing.ledger.is_claimed(index, seq) for seq, index in enumerate(indexes, start=1))
    consuming.begin()
    assert consuming.ran == list(range(5))
    assert consuming.entered == [(7, index, seq) for seq, index in enumerate(indexes, start=1)]
    assert all(producing.ledger.is_claimed(index, seq) for seq, index in enumerate(indexes, start=1))


@pytest.mark.parametrize("how", ["revoked", "given up", "reused", "late"])
async def test_what_somebody_else_has_by_then_does_not_begin(
    producing: ProducerSide, consuming: ConsumerSide, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_RESTING", 0)
    consuming.hesitates = True
    index = producing.enqueue(1, time.monotonic_ns() + 20_000_000 if how == "late" else FAR)
    consuming.consumer.begin()
    assert len(consuming.waiting) == 1
    match how:
        case "revoked":
            producing.ledger.revoke(index, 1)
        case "given up":
            producing.producer.reject_waiting()
        case "reused":
            producing.producer.reject_waiting()
            assert producing.enqueue(2) == index
        case _:
            await until(lambda: time.monotonic_ns() > unpack(token_places(consuming.ledger)[0]).deadline_ns)
    consuming.begin()
    assert (consuming.ran, consuming.entered) == ([], [])
    if how == "late":
        producing.producer.expire(FAR)
        assert producing.expired == [index], "its owner answers"


async def test_what_was_moved_while_our_entry_was_made_does_not_begin(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    """The supervisor stops a hanging process there, sees no entry of it, and moves the request."""
    index = producing.enqueue(1)
    consuming.meanwhile = lambda: producing.ledger.revoke(index, 1)
    consuming.consumer.begin()
    assert consuming.ran == []
    producing.producer.expire(1)
    assert producing.ledger.held == 0


async def test_with_no_place_left_for_a_token_what_is_pulled_begins_at_once(
    producing: ProducerSide, consuming: ConsumerSide
) -> None:
    consuming.hesitates = True
    for number in range(TOKEN_PLACES + 5):
        producing.enqueue(number)
    consuming.consumer.begin()
    assert consuming.ran == list(range(TOKEN_PLACES)), "the last one, and all before it in order"
    assert len(consuming.waiting) == 5
    consuming.begin()
    assert consuming.ran == list(range(TOKEN_PLACES + 5))
    assert consuming.rooms[DEFAULT] == 100 - TOKEN_PLACES - 5
