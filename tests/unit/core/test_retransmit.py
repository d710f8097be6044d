"""Replies that may have to go out again, as tables of moments."""

from __future__ import annotations

import pytest

from ajhost.core.retransmit import RetransmitBuffer
from ajhost.core.server_restart import RestartWindow
from tests.support.memory_ledger import ledger_in_memory

MIB = 1 << 20


def restart_window() -> RestartWindow:
    """A host that knows nothing yet."""
    return RestartWindow(ledger_in_memory())


def _repeats(buffer: RetransmitBuffer, begin: float, seconds: int) -> list[float]:
    """When anything was due, counted from `begin`, looking ten times a second."""
    tenths = range(seconds * 10 + 1)
    return [tenth / 10 for tenth in tenths if buffer.due(begin + tenth / 10)]


def test_nothing_is_repeated_while_the_server_stays() -> None:
    buffer = RetransmitBuffer(restart_window())
    assert buffer.reconnected(0.0, None) == []
    buffer.sent(b"a", [], 1.0)
    assert _repeats(buffer, 1.0, 60) == []
    assert buffer.unconfirmed
    assert not buffer.repeating


@pytest.mark.parametrize(
    ("away", "sent_after", "repeats"),
    [
        (0.5, 0.0, [1, 3, 7, 15]),
        (0.5, 5.0, [1, 3, 7]),
        (0.5, 9.9, [1]),
        (0.5, 10.0, []),
        (30.0, 0.0, [1, 3, 7, 15, 31]),
        (600.0, 0.0, [1, 3, 7, 15, 31, 63]),
        (600.0, 58.0, [1, 3]),
        (600.0, 61.0, []),
    ],
)
def test_past_a_restart_replies_are_repeated_until_their_requesters_are_back(
    away: float, sent_after: float, repeats: list[float]
) -> None:
    buffer = RetransmitBuffer(restart_window())
    buffer.reconnected(100.0, away)
    buffer.sent(b"a", [], 100.0 + sent_after)
    assert buffer.repeating == bool(repeats)
    assert _repeats(buffer, 100.0 + sent_after, 120) == repeats
    assert not buffer.repeating


def test_the_server_is_asked_once_for_what_was_sent() -> None:
    buffer = RetransmitBuffer(restart_window())
    assert buffer.next_mark() is None
    buffer.sent(b"a", [1, 2], 0.0)
    first = buffer.next_mark()
    assert first is not None
    assert buffer.next_mark() is None
    buffer.sent(b"b", [3], 0.0)
    assert buffer.confirmed(first, 0.1) == [1, 2]
    assert list(buffer.entries) == [3]
    assert buffer.reconnected(0.2, None) == [(b"b", [3])]
    assert list(buffer.entries) == []


@pytest.mark.parametrize(
    ("age", "away", "kept"),
    [
        (0.5, None, []),
        (0.5, 0.1, [(b"a", [])]),
        (1.9, 0.1, [(b"a", [])]),
        (2.2, 0.1, []),
        (9.0, 7.5, [(b"a", [])]),
    ],
)
def test_what_was_confirmed_is_kept_for_two_seconds_in_case_the_server_is_killed(
    age: float, away: float | None, kept: list[tuple[bytes, list[int]]]
) -> None:
    buffer = RetransmitBuffer(restart_window())
    buffer.sent(b"a", [1, 2], 0.0)
    mark = buffer.next_mark()
    assert mark is not None
    assert buffer.confirmed(mark, 1.0) == [1, 2]
    assert not buffer.unconfirmed
    assert buffer.reconnected(1.0 + age, away) == kept


@pytest.mark.parametrize(("now", "released"), [(5.0, []), (9.9, []), (10.0, [1, 2, 3]), (90.0, [1, 2, 3])])
def test_past_a_restart_entries_are_held_until_requesters_are_back(now: float, released: list[int]) -> None:
    buffer = RetransmitBuffer(restart_window())
    buffer.reconnected(0.0, 0.1)
    for entries in ([1, 2], [3]):
        buffer.sent(b"a", entries, 1.0)
        mark = buffer.next_mark()
        assert mark is not None
        assert buffer.confirmed(mark, 1.1) == []
    assert not buffer.unconfirmed
    assert buffer.held == 3
    assert buffer.release_due(now) == released
    assert buffer.held == 3 - len(released)


@pytest.mark.parametrize("spared", [False, True])
def test_what_is_held_is_let_go_when_entries_are_few(spared: bool) -> None:
    buffer = RetransmitBuffer(restart_window())
    buffer.reconnected(0.0, 0.1)
    buffer.sent(b"a", [1], 1.0)
    mark = buffer.next_mark()
    assert mark is not None
    buffer.confirmed(mark, 1.1)
    buffer.sent(b"b", [2], 1.2)
    assert (buffer.release_oldest(last=True) if spared else buffer.release_held()) == ([1, 2] if spared else [1])
    assert buffer.held == 0
    assert buffer.due(2.5) == [b"a", b"b"], "the replies themselves are kept"


def test_the_oldest_goes_first_when_too_much_is_kept_and_its_entries_with_it() -> None:
    buffer = RetransmitBuffer(restart_window())
    dropped = [buffer.sent(bytes([letter]) * 3 * MIB, [letter], 0.0) for letter in b"abc"]
    assert dropped == [[], [], [ord("a")]]
    assert [data[:1] for data, _ in buffer.reconnected(0.0, None)] == [b"b", b"c"]
    buffer.sent(b"d" * 5 * MIB, [4], 0.0)
    mark = buffer.next_mark()
    assert mark is not None
    buffer.confirmed(mark, 0.0)
    assert buffer.sent(b"e" * 5 * MIB, [5], 0.0) == []
    assert [data[:1] for data, _ in buffer.reconnected(0.0, 0.0)] == [b"e"]


def test_what_was_not_asked_about_is_counted() -> None:
    buffer = RetransmitBuffer(restart_window())
    buffer.sent(b"a", [1, 2], 0.0)
    buffer.sent(b"b", [3], 0.0)
    assert buffer.unasked == 3
    buffer.next_mark()
    assert buffer.unasked == 0


def test_the_oldest_repeats_go_first_when_there_are_too_many() -> None:
    buffer = RetransmitBuffer(restart_window())
    buffer.reconnected(0.0, 60.0)
    for letter in b"abc":
        buffer.sent(bytes([letter]) * 3 * MIB, [], 0.0)
    assert [data[:1] for data in buffer.due(1.0)] == [b"b", b"c"]


def test_what_another_process_finds_is_true_for_everybody() -> None:
    shared = restart_window()
    other, buffer = RetransmitBuffer(shared), RetransmitBuffer(shared)
    buffer.reconnected(0.0, None)
    buffer.sent(b"settled", [1], 90.0)
    buffer.sent(b"just now", [2], 99.5)
    mark = buffer.next_mark()
    assert mark is not None
    buffer.confirmed(mark, 99.6)
    buffer.sent(b"unconfirmed", [3], 99.9)
    other.reconnected(100.0, 0.1)
    assert shared.is_open(100.1)
    assert buffer.due(100.1) == []
    assert buffer.due(101.2) == [b"settled", b"just now", b"unconfirmed"], "as it left just before"
    assert buffer.due(101.3) == []
    later = RetransmitBuffer(shared)
    later.sent(b"later", [4], 105.0)
    assert _repeats(later, 105.0, 20) == [1, 3, 7]
    late = RetransmitBuffer(shared)
    late.sent(b"late", [5], 110.0)
    assert _repeats(late, 110.0, 20) == []
