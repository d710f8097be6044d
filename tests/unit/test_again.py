"""Replies that may have to go out again, as tables of moments."""

from __future__ import annotations

import pytest

from ajhost.core.again import Again
from ajhost.core.requesters import Requesters
from tests.support.memory import ledger_in_memory

MIB = 1 << 20


def requesters() -> Requesters:
    """A host that knows nothing yet."""
    return Requesters(ledger_in_memory())


def _repeats(again: Again, begin: float, seconds: int) -> list[float]:
    """When anything was due, counted from `begin`, looking ten times a second."""
    tenths = range(seconds * 10 + 1)
    return [tenth / 10 for tenth in tenths if again.due(begin + tenth / 10)]


def test_nothing_is_repeated_while_the_server_stays() -> None:
    again = Again(requesters())
    assert again.came_up(0.0, None) == []
    again.sent(b"a", [], 1.0)
    assert _repeats(again, 1.0, 60) == []
    assert again.unconfirmed
    assert not again.repeating


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
    again = Again(requesters())
    again.came_up(100.0, away)
    again.sent(b"a", [], 100.0 + sent_after)
    assert again.repeating == bool(repeats)
    assert _repeats(again, 100.0 + sent_after, 120) == repeats
    assert not again.repeating


def test_the_server_is_asked_once_for_what_was_sent() -> None:
    again = Again(requesters())
    assert again.ask() is None
    again.sent(b"a", [1, 2], 0.0)
    first = again.ask()
    assert first is not None
    assert again.ask() is None
    again.sent(b"b", [3], 0.0)
    assert again.confirmed(first, 0.1) == [1, 2]
    assert list(again.entries) == [3]
    assert again.came_up(0.2, None) == [(b"b", [3])]
    assert list(again.entries) == []


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
    again = Again(requesters())
    again.sent(b"a", [1, 2], 0.0)
    mark = again.ask()
    assert mark is not None
    assert again.confirmed(mark, 1.0) == [1, 2]
    assert not again.unconfirmed
    assert again.came_up(1.0 + age, away) == kept


@pytest.mark.parametrize(("now", "released"), [(5.0, []), (9.9, []), (10.0, [1, 2, 3]), (90.0, [1, 2, 3])])
def test_past_a_restart_entries_are_held_until_requesters_are_back(now: float, released: list[int]) -> None:
    again = Again(requesters())
    again.came_up(0.0, 0.1)
    for entries in ([1, 2], [3]):
        again.sent(b"a", entries, 1.0)
        mark = again.ask()
        assert mark is not None
        assert again.confirmed(mark, 1.1) == []
    assert not again.unconfirmed
    assert again.held == 3
    assert again.ripe(now) == released
    assert again.held == 3 - len(released)


@pytest.mark.parametrize("spared", [False, True])
def test_what_is_held_is_let_go_when_entries_are_few(spared: bool) -> None:
    again = Again(requesters())
    again.came_up(0.0, 0.1)
    again.sent(b"a", [1], 1.0)
    mark = again.ask()
    assert mark is not None
    again.confirmed(mark, 1.1)
    again.sent(b"b", [2], 1.2)
    assert (again.spare(last=True) if spared else again.let_go()) == ([1, 2] if spared else [1])
    assert again.held == 0
    assert again.due(2.5) == [b"a", b"b"], "the replies themselves are kept"


def test_the_oldest_goes_first_when_too_much_is_kept_and_its_entries_with_it() -> None:
    again = Again(requesters())
    dropped = [again.sent(bytes([letter]) * 3 * MIB, [letter], 0.0) for letter in b"abc"]
    assert dropped == [[], [], [ord("a")]]
    assert [data[:1] for data, _ in again.came_up(0.0, None)] == [b"b", b"c"]
    again.sent(b"d" * 5 * MIB, [4], 0.0)
    mark = again.ask()
    assert mark is not None
    again.confirmed(mark, 0.0)
    assert again.sent(b"e" * 5 * MIB, [5], 0.0) == []
    assert [data[:1] for data, _ in again.came_up(0.0, 0.0)] == [b"e"]


def test_what_was_not_asked_about_is_counted() -> None:
    again = Again(requesters())
    again.sent(b"a", [1, 2], 0.0)
    again.sent(b"b", [3], 0.0)
    assert again.unasked == 3
    again.ask()
    assert again.unasked == 0


def test_the_oldest_repeats_go_first_when_there_are_too_many() -> None:
    again = Again(requesters())
    again.came_up(0.0, 60.0)
    for letter in b"abc":
        again.sent(bytes([letter]) * 3 * MIB, [], 0.0)
    assert [data[:1] for data in again.due(1.0)] == [b"b", b"c"]


def test_what_another_process_finds_is_true_for_everybody() -> None:
    shared = requesters()
    other, again = Again(shared), Again(shared)
    again.came_up(0.0, None)
    again.sent(b"settled", [1], 90.0)
    again.sent(b"just now", [2], 99.5)
    mark = again.ask()
    assert mark is not None
    again.confirmed(mark, 99.6)
    again.sent(b"unconfirmed", [3], 99.9)
    other.came_up(100.0, 0.1)
    assert again.awaits_requesters(100.1)
    assert again.due(100.1) == []
    assert again.due(101.2) == [b"settled", b"just now", b"unconfirmed"], "as it left just before"
    assert again.due(101.3) == []
    later = Again(shared)
    later.sent(b"later", [4], 105.0)
    assert _repeats(later, 105.0, 20) == [1, 3, 7]
    late = Again(shared)
    late.sent(b"late", [5], 110.0)
    assert _repeats(late, 110.0, 20) == []
