"""Throttling: the first of each kind is told at once, and every other one is counted in something that is told."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ajhost.core.digest import Digest
from ajhost.core.timings import LOG_REPEAT


def test_the_first_is_told_and_what_follows_comes_with_a_count() -> None:
    digest: Digest[str] = Digest(30.0)
    assert digest.tell("full", "a", 0.0)
    assert not digest.tell("full", "b", 1.0)
    assert not digest.tell("full", "c", 2.0)
    assert digest.due(29.9) == []
    assert digest.due(30.0) == [("c", 2, 30.0)]
    assert not digest.tell("full", "d", 31.0)
    assert digest.due(60.0) == [("d", 1, 30.0)]


def test_what_does_not_come_again_is_told_at_once_the_next_time() -> None:
    digest: Digest[str] = Digest(30.0)
    assert digest.tell("full", "a", 0.0)
    assert digest.due(30.0) == []
    assert digest.tell("full", "b", 31.0)


def test_each_kind_is_throttled_by_itself() -> None:
    digest: Digest[str] = Digest()
    assert digest.tell("one", "a", 0.0)
    assert digest.tell("other", "b", 0.0)
    assert not digest.tell("one", "c", 0.0)


def test_what_is_kept_back_at_the_end_is_told_then() -> None:
    digest: Digest[str] = Digest()
    digest.tell("one", "a", 0.0)
    digest.tell("one", "b", 0.0)
    digest.tell("other", "c", 0.0)
    assert digest.rest(5.0) == [("b", 1, 5.0)]
    assert digest.rest(5.0) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.booleans())))
def test_every_one_is_told_or_counted_and_none_twice(
    events: list[tuple[str, float, bool]],
) -> None:
    digest: Digest[str] = Digest()
    now, told = 0.0, 0
    for key, pause, look in events:
        now += pause
        told += digest.tell(key, key, now)
        if look:
            told += sum(count for _, count, _ in digest.due(now))
    told += sum(count for _, count, _ in digest.rest(now))
    assert told == len(events)


@given(st.lists(st.floats(0, 5), max_size=200))
def test_nothing_is_told_more_often_than_it_should(pauses: list[float]) -> None:
    digest: Digest[int] = Digest()
    now, moments = 0.0, []
    for pause in pauses:
        now += pause
        moments += [now] * digest.tell("k", 1, now)
        moments += [now for _ in digest.due(now)]
    assert all(later - earlier >= LOG_REPEAT for earlier, later in itertools.pairwise(moments))
