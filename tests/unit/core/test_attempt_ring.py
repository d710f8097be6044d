"""A ring of attempts keeps the newest, whatever its writer was doing when it died."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.core.attempt_ring import LONGEST, SIZE, AttemptRing, RingError, read
from tests.support.kill_states import states

SMALL = 64 + 4 * 512


def texts(buffer: bytes | bytearray) -> list[bytes]:
    return [text for _, text in read(memoryview(buffer))]


def test_a_new_ring_is_empty() -> None:
    memory = bytearray(SIZE)
    AttemptRing(memoryview(memory))
    assert read(memoryview(memory)) == []


@given(st.lists(st.binary(max_size=LONGEST), max_size=12))
def test_the_newest_are_kept_in_their_order(written: list[bytes]) -> None:
    memory = bytearray(SMALL)
    ring = AttemptRing(memoryview(memory))
    for text in written:
        ring.append(text)
    assert texts(memory) == written[-4:]


def test_a_later_writer_goes_on_where_the_last_one_stopped() -> None:
    memory = bytearray(SMALL)
    AttemptRing(memoryview(memory)).append(b"of the first")
    AttemptRing(memoryview(memory)).append(b"of the second")
    assert read(memoryview(memory)) == [(1, b"of the first"), (2, b"of the second")]


def test_a_kill_at_any_instruction_leaves_whole_records() -> None:
    memory = bytearray(SMALL)
    ring = AttemptRing(memoryview(memory))
    for number in range(4):
        ring.append(b"%d" % number * 100)
    seen = {tuple(texts(state)) for state, _ in states(memory, lambda: None, lambda: ring.append(b"new" * 100))}
    old = [b"%d" % number * 100 for number in range(4)]
    assert seen <= {tuple(old), tuple(old[1:]), (*old[1:], b"new" * 100)}
    assert (*old[1:], b"new" * 100) in seen


def test_a_text_that_is_too_long_is_an_error() -> None:
    ring = AttemptRing(memoryview(bytearray(SMALL)))
    with pytest.raises(ValueError, match="497 bytes do not fit"):
        ring.append(b"x" * 497)


@pytest.mark.parametrize("memory", [b"", b"x" * SMALL, b"x" * 64, bytes(SMALL)])
def test_what_is_no_ring_is_told(memory: bytes) -> None:
    with pytest.raises(RingError):
        read(memoryview(memory))


@given(st.integers(0, SMALL - 1), st.integers(0, 255))
def test_a_stray_write_breaks_nothing_but_records(at: int, value: int) -> None:
    memory = bytearray(SMALL)
    ring = AttemptRing(memoryview(memory))
    for number in range(6):
        ring.append(b"%d" % number)
    memory[at] = value
    try:
        assert len(texts(memory)) <= 4
    except RingError:
        assert at < 64
