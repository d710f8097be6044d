"""The ledger: what its entries say, and that no kill between two instructions loses or doubles a request."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from ajhost.core.recovery_rules import classify
from ajhost.ledger.layout import (
    ENTRY_SIZE,
    ENTRY_WORDS,
    FIRST,
    HEADER_SIZE,
    MAX_REPLY,
    SIZES,
    TEXT,
    Geometry,
    Identity,
    LedgerError,
    State,
    Word,
    create,
    geometry_for,
)
from ajhost.ledger.queue_token import Token, TokenState, check
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.ledger.view import Ledger
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import scan
from tests.support.kill_states import states
from tests.support.memory_ledger import ledger_in_memory

SMALL = Geometry(8, 4096, 4096)
FRAME = b"MSG s 1 r 2\r\nhi\r\n"


def fresh(geometry: Geometry = SMALL) -> tuple[bytearray, LedgerWriter]:
    memory = bytearray(geometry.size)
    create(memoryview(memory), geometry, Identity(7, 3, 2))
    return memory, LedgerWriter(memoryview(memory))


def received(owner: LedgerWriter, frame: bytes = FRAME) -> int:
    index = owner.receive_copy(frame, 11)
    assert index is not None
    return index


# --- the file


def test_a_ledger_says_whose_it_is() -> None:
    _, owner = fresh()
    assert (owner.serial, owner.slot, owner.generation, owner.entries) == (7, 3, 2, 8)
    assert owner.chunk_at == HEADER_SIZE + 8 * ENTRY_SIZE


def test_an_owner_has_memory_for_the_entries_that_were_in_use_alone() -> None:
    geometry = Geometry(4096, 4096, 4096)
    memory = bytearray(geometry.size)
    create(memoryview(memory), geometry, Identity(7, 3, 2))
    tracemalloc.start()
    owner = LedgerWriter(memoryview(memory))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert owner.available == 4096
    assert most < 16 << 10


def test_each_entry_is_taken_once_and_there_are_no_more() -> None:
    _, owner = fresh()
    taken = [owner.start_pulled(1) for _ in range(5)]
    owner.release_all(taken[1:3])
    assert (owner.available, owner.held) == (5, 3)
    taken = [taken[0], *taken[3:], *(owner.start_pulled(1) for _ in range(5))]
    assert sorted(taken) == list(range(8))
    assert (owner.available, owner.held) == (0, 8)
    with pytest.raises(IndexError):
        owner.start_pulled(1)


def without_magic(memory: bytearray) -> bytearray:
    memory[0] ^= 1
    return memory


def of_another_layout(memory: bytearray) -> bytearray:
    memory[Word.LAYOUT * 8] += 1
    return memory


def with_other_sizes(memory: bytearray) -> bytearray:
    memory[Word.ENTRIES * 8] += 1
    return memory


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda memory: bytearray(), "shorter than a header"),
        (lambda memory: memory[: HEADER_SIZE - 8], "shorter than a header"),
        (lambda memory: memory[:-3], "not of whole words"),
        (lambda memory: bytearray(len(memory)), "no ledger"),
        (lambda memory: memory[:-8], "sizes that do not fit"),
        (lambda memory: memory + bytes(8), "sizes that do not fit"),
        (without_magic, "no ledger"),
        (of_another_layout, "this is layout"),
        (with_other_sizes, "sizes that do not fit"),
    ],
)
def test_what_is_no_ledger_is_said_to_be_none(spoil: Callable[[bytearray], bytearray], text: str) -> None:
    memory, _ = fresh()
    with pytest.raises(LedgerError, match=text):
        Ledger(memoryview(spoil(bytearray(memory))))


@pytest.mark.parametrize("held", [0, 1, 64, 2048, 100_000])
@pytest.mark.parametrize("max_payload", [1024, 1 << 20, 8 << 20])
def test_a_geometry_holds_what_it_is_asked_for(held: int, max_payload: int) -> None:
    geometry = geometry_for(held, max_payload)
    frame = max_payload + 8192
    assert geometry.entries >= 2 * held + 512
    assert geometry.chunk >= 2 * frame + READ_SIZE
    assert geometry.store >= max(4 * frame, held * 4096)
    assert geometry.size % 4096 == 0


# --- entries


def test_an_entry_tells_what_was_started() -> None:
    _, owner = fresh()
    index = received(owner)
    owner.set_deadline(index, 90)
    assert owner.start(index, 80, b"reply", "ä".encode(), b"email:new", 5, 6, (1, 2, 3))
    entry = owner.entry(index)
    assert (entry.state, entry.reply, entry.id, entry.type) == (State.STARTED, b"reply", "ä", "email:new")
    assert (entry.deadline_ns, entry.started_ns, entry.received_ns) == (90, 80, 11)
    assert (entry.route, entry.tries, entry.origin) == (5, 6, (1, 2, 3))
    assert (entry.seq, entry.revoked, entry.claimed) == (1, False, False)
    assert owner.running() == 1


def test_only_entries_that_were_ever_in_use_are_looked_at() -> None:
    _, owner = fresh()
    assert list(owner.touched()) == []
    first, second = received(owner), received(owner)
    owner.release(first)
    owner.release(received(owner))
    assert list(owner.touched()) == [first, second] == [0, 1]
    pulled = {owner.start_pulled(1) for _ in range(3)}
    assert pulled == {0, 2, 3}
    assert list(owner.touched()) == [0, 1, 2, 3]
    assert [entry.index for entry in owner.used()] == [1]


def test_the_longest_texts_fit_and_longer_ones_are_cut() -> None:
    _, owner = fresh()
    first, second = received(owner), received(owner)
    owner.start(second, 1, b"r", b"i", b"t", 0, 0)
    owner.start(first, 1, b"r" * MAX_REPLY, b"i" * 999, b"t" * 999, 0xFFFF, 1 << 63)
    entry = owner.entry(first)
    assert (len(entry.reply), len(entry.id), len(entry.type)) == (MAX_REPLY, 64, 96)
    assert owner.entry(second).reply == b"r", "the neighbour is untouched"


def test_a_frame_moves_to_the_store_and_is_given_back_with_its_entry() -> None:
    _, owner = fresh()
    owner.view[owner.chunk_at : owner.chunk_at + len(FRAME)] = FRAME
    for _ in range(200):
        index = owner.receive(owner.chunk_at, len(FRAME), 0)
        assert owner.keep(index, owner.frame(index))
        assert owner.frame(index) == FRAME
        assert owner.entry(index).frame_at >= owner.chunk_at + owner.chunk_size
        owner.release(index)
    assert owner.available == 8
    assert owner.held == 0
    assert received(owner, bytes(4096)) is not None, "the whole store is free again"


def test_without_an_entry_or_room_nothing_is_copied() -> None:
    _, owner = fresh()
    assert owner.receive_copy(bytes(4097), 0) is None
    assert owner.available == 8
    for _ in range(8):
        received(owner)
    assert owner.receive_copy(FRAME, 0) is None
    owner.release(0)
    assert owner.receive_copy(bytes(4096 - 8 * 64), 0) is not None, "the failed copy took no room"


def test_no_two_requests_of_a_ledger_have_the_same_number() -> None:
    _, owner = fresh()
    numbers = set()
    for _ in range(100):
        index = received(owner)
        numbers.add(owner.state(index)[0])
        owner.release(index)
        reserved = owner.start_pulled(0)
        numbers.add(owner.state(reserved)[0])
        owner.release(reserved)
    assert len(numbers) == 200


@pytest.mark.parametrize("act", ["start", "answer", "refuse"])
def test_what_the_supervisor_spoke_for_is_not_the_owners_any_more(act: str) -> None:
    _, owner = fresh()
    index = received(owner)
    if act == "answer":
        owner.start(index, 1, b"r", b"", b"", 0, 0)
    owner.revoke(index, 1)
    mine = {
        "start": lambda: owner.start(index, 1, b"r", b"", b"", 0, 0),
        "answer": lambda: owner.answer(index),
        "refuse": lambda: owner.refuse(index, b"r"),
    }[act]()
    assert mine is False


def test_what_a_puller_started_is_not_refused_by_its_owner() -> None:
    _, owner = fresh()
    index = received(owner)
    owner.queue(index, 1)
    owner.claim(index, 1)
    assert not owner.take_back(index, 1)


def test_a_refusal_leaves_its_own_reply_subject_and_nothing_of_an_earlier_request() -> None:
    _, owner = fresh()
    index = owner.start_pulled(1)
    owner.start(index, 1, b"earlier", b"id", b"type", 1, 1, (9, 9, 9))
    owner.answer(index)
    owner.release(index)
    assert received(owner) == index
    assert owner.refuse(index, b"now")
    (entry,) = classify(owner).answer
    assert (entry.reply, entry.id, entry.type, entry.origin) == (b"now", "", "", None)


def test_a_refusal_of_a_started_request_keeps_what_was_put_down_when_it_started() -> None:
    _, owner = fresh()
    index = owner.start_pulled(1)
    owner.start(index, 1, b"r", b"id", b"type", 1, 1, (9, 8, 7))
    assert owner.refuse(index, b"r")
    entry = owner.entry(index)
    assert (entry.state, entry.id, entry.origin) == (State.ANSWERED, "id", (9, 8, 7))


@pytest.mark.parametrize(("size", "kept"), [(ENTRY_SIZE - 96, True), (ENTRY_SIZE - 95, False)])
def test_a_refusals_reply_subject_stays_within_its_entry(size: int, kept: bool) -> None:
    _, owner = fresh()
    first, second = received(owner), received(owner)
    owner.start(second, 1, b"r", b"i", b"t", 0, 0)
    owner.refuse(first, b"x" * size)
    assert len(owner.entry(first).reply) == (size if kept else 0)
    assert owner.entry(second).seq == 2


# --- a kill between any two instructions

COUNT = 12
BODY = 14_000


def request(number: int) -> bytes:
    reply, body = b"R%d" % number, b"%d:" % number + bytes([65 + number]) * BODY
    return b"MSG s 1 %b %d\r\n%b\r\n" % (reply, len(body), body)


STREAM = b"PING\r\n" + b"".join(map(request, range(COUNT)))
GEOMETRY = Geometry(16, 2 * (BODY + 4096) + READ_SIZE, 1 << 17)


class Owner:
    """A worker reduced to what it does to shared memory: some requests start, some are enqueued, some are refused."""

    def __init__(self) -> None:
        self.memory = bytearray(GEOMETRY.size)
        create(memoryview(self.memory), GEOMETRY, Identity(7, 0, 1))
        self.ledger = LedgerWriter(memoryview(self.memory))
        self.chunk = ReceiveBuffer(self.ledger)
        self.consumed = 0
        self.tokens: list[Token] = []
        self.answered: set[bytes] = set()

    def mark(self) -> tuple[int, tuple[Token, ...], frozenset[bytes]]:
        """What the outer world has of it: bytes taken from the kernel, tokens in the queue, replies in the kernel."""
        return self.consumed, tuple(self.tokens), frozenset(self.answered)

    def run(self) -> None:
        self.chunk.reset()
        needed = 0
        for size in (3, 20, 30_000, 5, 41_000, 1, 14_020, 60_000, 1 << 20, 1 << 20, 1 << 20, 1 << 20):
            space = self.chunk.free_space(needed)
            piece = STREAM[self.consumed : self.consumed + min(size, len(space))]
            space[: len(piece)] = piece
            self.consumed += len(piece)
            self.chunk.commit(len(piece))
            needed = self.parse()
        assert self.consumed == len(STREAM)

    def parse(self) -> int:
        ledger, data = self.ledger, self.chunk.unconsumed()
        found = scan(data, 0, ledger.available)
        place = self.chunk.place()
        batch = [(ledger.receive(place + m[0], m[3] - m[0], 1), m) for m in found.messages]
        self.chunk.consume(found.end)
        for index, (begin, _, body, end, _, reply) in batch:
            match int(data[body:end].split(b":")[0]) % 4:
                case 0:
                    self.start_and_answer(index, reply)
                case 1:
                    self.enqueue(index, data[begin:end])
                case 2:
                    assert ledger.refuse(index, reply)
                    self.answered.add(reply)
                    ledger.release(index)
                case _:
                    ledger.start(index, 1, reply, b"id", b"type", 0, 1)
        return found.needed

    def start_and_answer(self, index: int, reply: bytes) -> None:
        assert self.ledger.start(index, 1, reply, b"id", b"type", 0, 1)
        assert self.ledger.answer(index)
        self.answered.add(reply)
        self.ledger.release(index)

    def enqueue(self, index: int, frame: bytes) -> None:
        assert self.ledger.keep(index, frame)
        self.ledger.set_deadline(index, 99)
        seq, _ = self.ledger.state(index)
        self.tokens.append(Token(7, index, seq, 99))
        self.ledger.queue(index, seq)


def heirs(memory: bytes, consumed: int, tokens: tuple[Token, ...]) -> tuple[list[bytes], list[bytes]]:
    """What an heir finds: whole frames that it runs elsewhere, and reply subjects that it answers for."""
    ledger = Ledger(memoryview(bytearray(memory)))
    run, places = [], set()
    estate = classify(ledger)
    for entry in estate.requeue:
        run.append(ledger.frame(entry.index))
        places.add(entry.frame_at)
        ledger.revoke(entry.index, entry.seq)
    run += [ledger.frame(t.entry) for t in tokens if check(t, ledger) is TokenState.VALID]
    if ledger.words[Word.EPOCH]:
        buffer = ReceiveBuffer(ledger)
        buffer.resume(consumed)
        while True:
            found = scan(buffer.unconsumed())
            run += [
                bytes(ledger.view[buffer.place() + m[0] : buffer.place() + m[3]])
                for m in found.messages
                if buffer.place() + m[0] not in places
            ]
            buffer.consume(found.end)
            places.clear()
            space = buffer.free_space(found.needed)
            piece = STREAM[consumed : consumed + len(space)]
            if not piece:
                break
            space[: len(piece)] = piece
            consumed += len(piece)
            buffer.commit(len(piece))
    return run, [entry.reply for entry in estate.answer]


def test_a_kill_between_any_two_instructions_loses_and_doubles_nothing() -> None:
    owner = Owner()
    everything = {b"R%d" % number: request(number) for number in range(COUNT)}
    passed = states(owner.memory, owner.mark, owner.run)
    assert len(passed) > 150
    bases = set()
    for memory, (consumed, tokens, answered) in passed:
        bases.add(memory[Word.BASE * 8 : Word.BASE * 8 + 8])
        run, ended = heirs(memory, consumed, tokens)
        replies = [scan(frame).messages[0][5] for frame in run]
        assert all(everything[r] == frame for r, frame in zip(replies, run, strict=True)), "a frame was spoilt"
        assert len(replies) == len(set(replies)), "a request runs twice"
        assert len(ended) == len(set(ended))
        assert not set(replies) & set(ended), "a request is run and answered for"
        assert not set(replies) & answered, "a request that was answered runs again"
        if consumed or memory[Word.EPOCH * 8]:
            assert {*replies, *ended, *answered} == set(everything), "a request is lost"
    assert len(bases) > 2, "the unfinished frame was moved to the front more than once"


def test_texts_that_a_stray_write_made_longer_than_an_entry_end_with_it() -> None:
    owner = ledger_in_memory()
    index = owner.receive_copy(b"MSG s 1 r 0\r\n\r\n", 1)
    assert index is not None
    owner.start(index, 2, b"r", b"id", b"type", 3, 4)
    owner.words[FIRST + index * ENTRY_WORDS + SIZES] = (1 << 64) - 1
    entry = owner.entry(index)
    assert len(entry.reply) == ENTRY_SIZE - TEXT
    assert (entry.id, entry.type) == ("", "")


def test_a_header_that_a_stray_write_has_changed_is_restored() -> None:
    owner = ledger_in_memory()
    before = bytes(owner.view)
    assert not owner.restore_header()
    owner.words[: Word.STORE_SIZE + 1] = memoryview(b"\xff" * 8 * (Word.STORE_SIZE + 1)).cast("Q")
    assert owner.restore_header()
    owner.words[Word.PID] = 0  # its owner's
    assert bytes(owner.view) == before
    Ledger(owner.view)
