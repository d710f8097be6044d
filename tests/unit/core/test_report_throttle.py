"""The same thing is told once in a while, with how often it has happened."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ajhost.core.report_throttle import Throttle
from ajhost.core.timings import LOG_REPEAT


def test_the_first_is_told_at_once_and_the_rest_with_their_number() -> None:
    throttle = Throttle[str](30.0)
    assert [throttle.count("a", now) for now in (0.0, 1.0, 29.9)] == [1, 0, 0]
    assert throttle.count("b", 29.9) == 1
    assert throttle.count("a", 30.0) == 3
    assert throttle.count("a", 31.0) == 0


def test_several_may_be_told_in_a_pause() -> None:
    throttle = Throttle[str](30.0)
    assert [throttle.count("a", now, "x", 3) for now in (0.0, 1.0, 2.0, 3.0, 29.9)] == [1, 1, 1, 0, 0]
    assert throttle.due(30.0) == [("x", 2, 30.0)]
    # that report is one of the next pause
    assert [throttle.count("a", now, "y", 3) for now in (31.0, 32.0, 33.0)] == [1, 1, 0]
    # without anybody who asks what is due
    assert throttle.count("a", 60.0, "z", 3) == 2


def test_names_from_outside_do_not_pile_up() -> None:
    throttle = Throttle[str](30.0, most=2)
    for number in range(1000):
        assert throttle.count(str(number), 0.0) == 1
    assert throttle.count("999", 0.0) == 0
    assert throttle.count("998", 0.0) == 0
    assert throttle.count("997", 0.0) == 1


def test_the_first_is_told_and_what_follows_comes_with_a_count() -> None:
    throttle = Throttle[str](30.0)
    assert throttle.count("full", 0.0, "a")
    assert not throttle.count("full", 1.0, "b")
    assert not throttle.count("full", 2.0, "c")
    assert throttle.due(29.9) == []
    assert throttle.due(30.0) == [("c", 2, 30.0)]
    assert not throttle.count("full", 31.0, "d")
    assert throttle.due(60.0) == [("d", 1, 30.0)]


def test_what_does_not_come_again_is_told_at_once_the_next_time() -> None:
    throttle = Throttle[str](30.0)
    assert throttle.count("full", 0.0, "a")
    assert throttle.due(30.0) == []
    assert throttle.count("full", 31.0, "b")


def test_each_kind_is_throttled_by_itself() -> None:
    throttle = Throttle[str]()
    assert throttle.count("one", 0.0, "a")
    assert throttle.count("other", 0.0, "b")
    assert not throttle.count("one", 0.0, "c")


def test_what_is_kept_back_at_the_end_is_told_then() -> None:
    throttle = Throttle[str]()
    throttle.count("one", 0.0, "a")
    throttle.count("one", 0.0, "b")
    throttle.count("other", 0.0, "c")
    assert throttle.rest(5.0) == [("b", 1, 5.0)]
    assert throttle.rest(5.0) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.booleans())))
def test_every_one_is_told_or_counted_and_none_twice(
    events: list[tuple[str, float, bool]],
) -> None:
    throttle = Throttle[str]()
    now, told = 0.0, 0
    for key, pause, look in events:
        now += pause
        told += throttle.count(key, now, key)
        if look:
            told += sum(count for _, count, _ in throttle.due(now))
    told += sum(count for _, count, _ in throttle.rest(now))
    assert told == len(events)


@given(st.lists(st.floats(0, 5), max_size=200))
def test_nothing_is_told_more_often_than_it_should(pauses: list[float]) -> None:
    throttle = Throttle[int]()
    now, moments = 0.0, []
    for pause in pauses:
        now += pause
        moments += [now] * bool(throttle.count("k", now, 1))
        moments += [now for _ in throttle.due(now)]
    assert all(later - earlier >= LOG_REPEAT for earlier, later in itertools.pairwise(moments))
