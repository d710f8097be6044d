"""The chunk's positions: which bytes of a connection are where, and whose they are after a death."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.core.chunk import LONGEST_FRAME, READ_SIZE, Chunk
from ajhost.core.layout import Geometry, Identity, LedgerError, Word, create
from ajhost.core.ledger import Ledger
from tests.support.every_kill import states

FRAME = 1 << 12
GEOMETRY = Geometry(1, 2 * FRAME + READ_SIZE, 4096)


def ledger() -> Ledger:
    view = memoryview(bytearray(GEOMETRY.size))
    create(view, GEOMETRY, Identity(7, 0, 1))
    return Ledger(view)


def receive(chunk: Chunk, data: bytes, needed: int = 0) -> None:
    chunk.space(needed)[: len(data)] = data
    chunk.take(len(data))


def words(owner: Ledger) -> tuple[int, int, int, int]:
    found = owner.words
    return found[Word.EPOCH], found[Word.BASE], found[Word.DONE], found[Word.RECV]


def test_positions_follow_what_is_received_and_done() -> None:
    owner = ledger()
    chunk = Chunk(owner)
    chunk.reset()
    steps: list[tuple[Callable[[], None], tuple[int, int, int, int], bytes]] = [
        (lambda: receive(chunk, b"abcdef"), (1, 0, 0, 6), b"abcdef"),
        (lambda: chunk.advance(4), (1, 0, 4, 6), b"ef"),
        (lambda: receive(chunk, b"gh"), (1, 0, 4, 8), b"efgh"),
        (lambda: chunk.advance(4), (1, 0, 8, 8), b""),
        # with nothing left over, the next bytes lie at the front again
        (lambda: receive(chunk, b"ij"), (1, 8, 8, 10), b"ij"),
        (lambda: chunk.advance(1), (1, 8, 9, 10), b"j"),
        # a new connection
        (chunk.reset, (2, 0, 0, 0), b""),
        (lambda: receive(chunk, b"x"), (2, 0, 0, 1), b"x"),
        # of a frame that is passed over, nothing is there to be parsed, nor kept
        (lambda: chunk.advance(6), (2, 0, 6, 1), b""),
        (lambda: receive(chunk, b"yz"), (2, 1, 6, 3), b""),
        (lambda: receive(chunk, b"abcdef"), (2, 3, 6, 9), b"def"),
    ]
    for number, (act, positions, left) in enumerate(steps):
        act()
        assert words(owner) == positions, number
        assert chunk.unparsed() == left, number
        assert bytes(owner.view[chunk.place() : chunk.place() + len(left)]) == left, number


@pytest.mark.parametrize(
    ("received", "done", "rest"),
    [(b"", 0, b""), (b"abcdef", 6, b""), (b"abcdef", 4, b"ef"), (b"abcdef", 0, b"abcdef"), (b"abc", 5, b"")],
)
def test_another_ledger_goes_on_where_a_chunk_stands(received: bytes, done: int, rest: bytes) -> None:
    owner, heir = ledger(), ledger()
    chunk = Chunk(owner)
    chunk.reset()
    receive(chunk, b"before")
    chunk.advance(6)
    receive(chunk, received)
    chunk.advance(done)
    chunk.continue_in(heir)
    assert heir.words[Word.EPOCH] == 1, "it has a connection"
    other = Chunk(heir)
    other.resume(6 + len(received))
    assert (other.done, other.received, other.unparsed()) == (6 + done, 6 + len(received), rest)
    for one in (chunk, other):
        receive(one, b"ghijkl")
        assert one.unparsed() == (rest or b"ghijkl"[max(done - len(received), 0) :]) + (rest and b"ghijkl")


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
def test_an_heir_goes_on_where_the_owner_stopped(
    base: int, done: int, recv: int, taken: int, unparsed: int
) -> None:
    owner = ledger()
    owner.words[Word.BASE], owner.words[Word.DONE], owner.words[Word.RECV] = base, done, recv
    chunk = Chunk(owner)
    chunk.resume(taken)
    assert len(chunk.unparsed()) == unparsed
    assert chunk.place() == owner.chunk_at + done - base
    assert owner.words[Word.RECV] == max(recv, taken)


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
    owner.words[Word.BASE], owner.words[Word.DONE], owner.words[Word.RECV] = base, done, recv
    with pytest.raises(LedgerError, match="^positions: "):
        Chunk(owner).resume(taken)
    assert owner.words[Word.RECV] == recv, "nothing is changed"


@pytest.mark.parametrize("left", [0, 1, 100, FRAME - 1])
@pytest.mark.parametrize("filled", [0, 1, FRAME, 2 * FRAME - 1, 2 * FRAME])
def test_there_is_always_room_for_the_rest_of_a_frame_and_for_a_read(left: int, filled: int) -> None:
    owner = ledger()
    chunk = Chunk(owner)
    chunk.reset()
    receive(chunk, bytes(filled))
    chunk.advance(filled)
    tail = bytes(i % 251 for i in range(left))
    chunk.space(0)
    if left:
        receive(chunk, b"." + tail)
        chunk.advance(1)
    space = chunk.space(FRAME)
    assert len(space) >= READ_SIZE
    assert chunk.unparsed() == tail, "the unfinished frame is whole wherever it lies now"


def test_more_is_asked_for_when_an_unfinished_frame_needs_more() -> None:
    owner = ledger()
    chunk = Chunk(owner)
    chunk.reset()
    receive(chunk, b"12345")
    assert len(chunk.space(READ_SIZE + 1000)) == READ_SIZE + 1000 - 5


@given(st.lists(st.tuples(st.integers(1, READ_SIZE), st.floats(0, 1)), max_size=12))
def test_every_byte_of_a_stream_comes_out_once_and_in_order(steps: list[tuple[int, float]]) -> None:
    stream = bytes(i * 7 % 256 for i in range(1000)) * (12 * READ_SIZE // 1000 + 1)
    chunk = Chunk(ledger())
    chunk.reset()
    sent = done = 0
    for size, share in steps:
        space = chunk.space(0)
        piece = stream[sent : sent + min(size, len(space))]
        space[: len(piece)] = piece
        sent += len(piece)
        chunk.take(len(piece))
        assert chunk.unparsed() == stream[done:sent]
        # at most a frame is ever left over
        part = max(int(share * (sent - done)), sent - done - FRAME)
        chunk.advance(part)
        done += part


def test_a_kill_while_a_connection_is_new_leaves_positions_of_one_connection_or_none() -> None:
    view = bytearray(GEOMETRY.size)
    create(memoryview(view), GEOMETRY, Identity(7, 0, 1))
    owner = Ledger(memoryview(view))
    chunk = Chunk(owner)
    chunk.reset()
    receive(chunk, b"abc")
    chunk.advance(2)
    for memory, _ in states(view, lambda: None, chunk.reset)[1:]:
        heir = Ledger(memoryview(bytearray(memory)))
        assert heir.words[Word.EPOCH] == 2
        again = Chunk(heir)
        try:
            again.resume(0)
        except LedgerError:
            continue
        assert again.unparsed() in (b"c", b""), (
            "what the earlier connection had left over, never a whole frame"
        )
