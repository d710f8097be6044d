"""The chunk's positions: which bytes of a connection are where, and whose they are after a death."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.ledger.layout import Geometry, Identity, LedgerError, Word, create, geometry_for
from ajhost.ledger.receive_buffer import LONGEST_FRAME, READ_SIZE, ReceiveBuffer
from ajhost.ledger.view import Ledger
from tests.support.kill_states import states

FRAME = 1 << 12
GEOMETRY = Geometry(1, 2 * FRAME + READ_SIZE, 4096)


def ledger() -> Ledger:
    view = memoryview(bytearray(GEOMETRY.size))
    create(view, GEOMETRY, Identity(7, 0, 1))
    return Ledger(view)


def receive(buffer: ReceiveBuffer, data: bytes, needed: int = 0) -> None:
    buffer.free_space(needed)[: len(data)] = data
    buffer.commit(len(data))


def words(owner: Ledger) -> tuple[int, int, int, int]:
    found = owner.words
    return found[Word.EPOCH], found[Word.BASE], found[Word.PARSED_POS], found[Word.RECEIVED_POS]


def test_positions_follow_what_is_received_and_done() -> None:
    owner = ledger()
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    steps: list[tuple[Callable[[], None], tuple[int, int, int, int], bytes]] = [
        (lambda: receive(buffer, b"abcdef"), (1, 0, 0, 6), b"abcdef"),
        (lambda: buffer.consume(4), (1, 0, 4, 6), b"ef"),
        (lambda: receive(buffer, b"gh"), (1, 0, 4, 8), b"efgh"),
        (lambda: buffer.consume(4), (1, 0, 8, 8), b""),
        # with nothing left over, the next bytes lie at the front again
        (lambda: receive(buffer, b"ij"), (1, 8, 8, 10), b"ij"),
        (lambda: buffer.consume(1), (1, 8, 9, 10), b"j"),
        # a new connection
        (buffer.reset, (2, 0, 0, 0), b""),
        (lambda: receive(buffer, b"x"), (2, 0, 0, 1), b"x"),
        # of a frame that is passed over, nothing is there to be parsed, nor kept
        (lambda: buffer.consume(6), (2, 0, 6, 1), b""),
        (lambda: receive(buffer, b"yz"), (2, 1, 6, 3), b""),
        (lambda: receive(buffer, b"abcdef"), (2, 3, 6, 9), b"def"),
    ]
    for number, (act, positions, left) in enumerate(steps):
        act()
        assert words(owner) == positions, number
        assert buffer.unconsumed() == left, number
        assert bytes(owner.view[buffer.place() : buffer.place() + len(left)]) == left, number


@pytest.mark.parametrize(
    ("received", "done", "rest"),
    [(b"", 0, b""), (b"abcdef", 6, b""), (b"abcdef", 4, b"ef"), (b"abcdef", 0, b"abcdef"), (b"abc", 5, b"")],
)
def test_another_ledger_goes_on_where_a_chunk_stands(received: bytes, done: int, rest: bytes) -> None:
    owner, heir = ledger(), ledger()
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    receive(buffer, b"before")
    buffer.consume(6)
    receive(buffer, received)
    buffer.consume(done)
    buffer.transfer_to(heir)
    assert heir.words[Word.EPOCH] == 1, "it has a connection"
    other = ReceiveBuffer(heir)
    other.resume(6 + len(received))
    assert (other.done, other.received, other.unconsumed()) == (6 + done, 6 + len(received), rest)
    for one in (buffer, other):
        receive(one, b"ghijkl")
        assert one.unconsumed() == (rest or b"ghijkl"[max(done - len(received), 0) :]) + (rest and b"ghijkl")


@pytest.mark.parametrize(
    ("base", "done", "recv", "taken", "unparsed"),
    [
        (0, 0, 0, 0, 0),
        (0, 4, 6, 6, 2),
        (0, 4, 6, 0, 2),
        (0, 4, 6, 9, 5),
        (5, 5, 5, 6, 1),
        (5, 5, 5, 5 + GEOMETRY.chunk, GEOMETRY.chunk),
    ],
)
def test_an_heir_goes_on_where_the_owner_stopped(base: int, done: int, recv: int, taken: int, unparsed: int) -> None:
    owner = ledger()
    owner.words[Word.BASE], owner.words[Word.PARSED_POS], owner.words[Word.RECEIVED_POS] = base, done, recv
    buffer = ReceiveBuffer(owner)
    buffer.resume(taken)
    assert len(buffer.unconsumed()) == unparsed
    assert buffer.place() == owner.chunk_at + done - base
    assert owner.words[Word.RECEIVED_POS] == max(recv, taken)


@pytest.mark.parametrize(
    ("base", "done", "recv", "taken"),
    [
        (5, 4, 6, 6),
        (0, 7 + LONGEST_FRAME, 6, 9),
        (0, 0, 0, GEOMETRY.chunk + 1),
        (5, 5, 6 + GEOMETRY.chunk, 0),
    ],
)
def test_positions_that_cannot_be_true_are_an_error(base: int, done: int, recv: int, taken: int) -> None:
    owner = ledger()
    owner.words[Word.BASE], owner.words[Word.PARSED_POS], owner.words[Word.RECEIVED_POS] = base, done, recv
    with pytest.raises(LedgerError, match="^positions: "):
        ReceiveBuffer(owner).resume(taken)
    assert owner.words[Word.RECEIVED_POS] == recv, "nothing is changed"


@pytest.mark.parametrize("left", [0, 1, 100, FRAME - 1])
@pytest.mark.parametrize("filled", [0, 1, FRAME, 2 * FRAME - 1, 2 * FRAME])
def test_there_is_always_room_for_the_rest_of_a_frame_and_for_a_read(left: int, filled: int) -> None:
    owner = ledger()
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    receive(buffer, bytes(filled))
    buffer.consume(filled)
    tail = bytes(i % 251 for i in range(left))
    buffer.free_space(0)
    if left:
        receive(buffer, b"." + tail)
        buffer.consume(1)
    space = buffer.free_space(FRAME)
    assert len(space) >= READ_SIZE
    assert buffer.unconsumed() == tail, "the unfinished frame is whole wherever it lies now"


def test_more_is_asked_for_when_an_unfinished_frame_needs_more() -> None:
    owner = ledger()
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    receive(buffer, b"12345")
    assert len(buffer.free_space(READ_SIZE + 1000)) == READ_SIZE + 1000 - 5


@given(st.lists(st.tuples(st.integers(1, READ_SIZE), st.floats(0, 1)), max_size=12))
def test_every_byte_of_a_stream_comes_out_once_and_in_order(steps: list[tuple[int, float]]) -> None:
    stream = bytes(i * 7 % 256 for i in range(1000)) * (12 * READ_SIZE // 1000 + 1)
    buffer = ReceiveBuffer(ledger())
    buffer.reset()
    sent = done = 0
    for size, share in steps:
        space = buffer.free_space(0)
        piece = stream[sent : sent + min(size, len(space))]
        space[: len(piece)] = piece
        sent += len(piece)
        buffer.commit(len(piece))
        assert buffer.unconsumed() == stream[done:sent]
        # at most a frame is ever left over
        part = max(int(share * (sent - done)), sent - done - FRAME)
        buffer.consume(part)
        done += part


def test_a_kill_while_a_connection_is_new_leaves_positions_of_one_connection_or_none() -> None:
    view = bytearray(GEOMETRY.size)
    create(memoryview(view), GEOMETRY, Identity(7, 0, 1))
    owner = Ledger(memoryview(view))
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    receive(buffer, b"abc")
    buffer.consume(2)
    for memory, _ in states(view, lambda: None, buffer.reset)[1:]:
        heir = Ledger(memoryview(bytearray(memory)))
        assert heir.words[Word.EPOCH] == 2
        again = ReceiveBuffer(heir)
        try:
            again.resume(0)
        except LedgerError:
            continue
        assert again.unconsumed() in (b"c", b""), "what the earlier connection had left over, never a whole frame"


class Short(Ledger):
    """A ledger whose file system has no more room."""

    def set_aside(self, offset: int, size: int) -> bool:
        return False


def test_without_memory_for_a_large_frame_there_is_no_place_to_receive_it_and_there_is_for_the_next() -> None:
    geometry = geometry_for(16, 8 << 20)
    view = memoryview(bytearray(geometry.size))
    create(view, geometry, Identity(7, 0, 1))
    buffer = ReceiveBuffer(Short(view))
    buffer.reset()
    receive(buffer, b"begin")
    assert len(buffer.free_space(8 << 20)) == 0
    buffer.consume(8 << 20)
    assert len(buffer.free_space(0)) == READ_SIZE
