"""Statistics by route: what is counted is read again, by whoever counted and whatever a stray write left."""

from __future__ import annotations

import bisect

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.core.route_stats import (
    BUCKETS,
    HEADER_SIZE,
    Histogram,
    NoPlace,
    RouteStats,
    StatsError,
    StatsWriter,
    add_up,
    clip,
    file_size,
    read,
    used_size,
)
from ajhost.protocol.reasons import REASONS, FailureReason

ROUTES = ("email:new", "", "sms")


def fresh(places: int = 4) -> bytearray:
    return bytearray(file_size(places))


def test_what_is_counted_is_read_by_route() -> None:
    memory = fresh()
    writer = StatsWriter(memoryview(memory), ROUTES)
    writer.completed([(0, 0.0005, 0.3)])
    writer.completed([(0, 0.0015, 7200.0)])
    writer.terminated(0, 0.0, 0.0)
    writer.failed(0, "deadline exceeded", 1.0, 2.0)
    writer.refused(0, "overloaded")
    writer.refused(writer.NO_ROUTE, "bad request")
    found = read(bytes(memory))
    email = found["email:new"]
    assert (email.completed, email.terminated) == (2, 1)
    assert {reason: n for reason, n in email.failed.items() if n} == {"deadline exceeded": 1}
    assert {reason: n for reason, n in email.refused.items() if n} == {"overloaded": 1}
    assert email.answered == 5
    assert email.waiting.count == email.running.count == 4
    assert email.waiting.total == pytest.approx(1.002)
    assert email.running.total == pytest.approx(7202.3)
    assert dict(email.running.cumulative())["0.5"] == 2
    assert email.running.cumulative()[-1] == ("+Inf", 4)
    assert (found[None].answered, found[None].refused["bad request"]) == (1, 1)
    assert found[""] == found["sms"] == RouteStats()


def test_a_batch_is_counted_as_its_tasks_one_by_one() -> None:
    tasks = [(0, 0.0002, 0.0001), (0, 0.0005, 0.0005), (0, 3.0, 0.0), (1, 0.0, 0.25), (0, 0.001, 0.001)]
    together, apart = fresh(), fresh()
    ran = StatsWriter(memoryview(together), ROUTES).completed(tasks)
    writer = StatsWriter(memoryview(apart), ROUTES)
    for task in tasks:
        writer.completed([task])
    assert ran == pytest.approx(0.2516)
    for route, one in read(bytes(apart)).items():
        other = read(bytes(together))[route]
        assert (one.completed, one.waiting.counts, one.running.counts) == (
            other.completed,
            other.waiting.counts,
            other.running.counts,
        )
        assert one.waiting.total == pytest.approx(other.waiting.total, abs=1e-8)
        assert one.running.total == pytest.approx(other.running.total, abs=1e-8)


def test_the_next_writer_goes_on_counting_where_the_last_one_stopped() -> None:
    memory = fresh(8)
    StatsWriter(memoryview(memory), ROUTES).refused(1, "draining")
    writer = StatsWriter(memoryview(memory), ("new", "", "email:new"))
    writer.refused(0, "draining")
    writer.refused(1, "draining")
    assert {route: s.answered for route, s in read(bytes(memory)).items()} == {
        None: 0, "email:new": 0, "": 2, "sms": 0, "new": 1,
    }  # fmt: skip


def test_times_are_added_up_over_writers() -> None:
    memory = fresh(1)
    for _ in range(5):
        StatsWriter(memoryview(memory), ("r",)).completed([(0, 1000.0, 2.5)])
    found = read(bytes(memory))["r"]
    assert (found.waiting.total, found.running.total) == (5000.0, 12.5)


def test_a_file_that_is_full_takes_no_further_route_and_is_whole_after_it_has_grown() -> None:
    memory = fresh(3)
    StatsWriter(memoryview(memory), ROUTES).refused(2, "draining")
    with pytest.raises(NoPlace, match="than 3"):
        StatsWriter(memoryview(memory), ("push",))
    grown = memory + bytes(file_size(4) - file_size(3))
    StatsWriter(memoryview(grown), ("push",)).refused(0, "draining")
    assert {route: s.answered for route, s in read(bytes(grown)).items() if s.answered} == {
        "sms": 1,
        "push": 1,
    }


def test_sums_are_over_every_file() -> None:
    one, other = fresh(), fresh()
    StatsWriter(memoryview(one), ("a", "b")).refused(0, "draining")
    writer = StatsWriter(memoryview(other), ("b", "a"))
    writer.refused(1, "draining")
    writer.refused(0, "draining")
    sums = add_up([read(bytes(one)), read(bytes(other))])
    assert {route: s.answered for route, s in sums.items()} == {None: 0, "a": 2, "b": 1}
    assert sums["a"].since(sums["b"]).answered == 1


@given(st.floats(0, 10_000), st.floats(0, 10_000))
def test_a_time_is_counted_in_the_bucket_whose_bound_it_does_not_exceed(waited: float, ran: float) -> None:
    memory = fresh(1)
    writer = StatsWriter(memoryview(memory), ("r",))
    writer.completed([(0, waited, ran)])
    writer.failed(0, "other", waited, ran)
    found = read(bytes(memory))["r"]
    for histogram, seconds in ((found.waiting, waited), (found.running, ran)):
        assert histogram.counts.index(2) == bisect.bisect_left(BUCKETS, seconds)
        assert histogram.total == pytest.approx(2 * seconds, abs=1e-5)


def test_a_clock_that_went_back_costs_no_count() -> None:
    memory = fresh(1)
    writer = StatsWriter(memoryview(memory), ("r",))
    writer.completed([(0, -5.0, -0.1)])
    found = read(bytes(memory))["r"]
    assert (found.completed, found.running.count, found.running.total) == (1, 1, 0.0)


@pytest.mark.parametrize(
    ("observed", "share", "seconds"),
    [
        ([], 0.5, None),
        ([0.0005] * 10, 0.5, 0.0005),
        ([0.0005] * 10, 0.99, 0.00099),
        ([0.0005] * 50 + [0.15] * 50, 0.5, 0.001),
        ([0.0005] * 98 + [0.15] * 2, 0.99, 0.15),
        ([9999.0], 0.99, 3600.0),
    ],
)
def test_a_quantile_lies_within_its_bucket(observed: list[float], share: float, seconds: float | None) -> None:
    memory = fresh(1)
    writer = StatsWriter(memoryview(memory), ("r",))
    for ran in observed:
        writer.completed([(0, 0.0, ran)])
    assert read(bytes(memory))["r"].running.quantile(share) == (None if seconds is None else pytest.approx(seconds))


def test_an_empty_histogram_has_no_quantile() -> None:
    assert Histogram((0,) * (len(BUCKETS) + 1), 0.0).quantile(0.99) is None


def test_a_long_name_is_clipped_at_a_whole_character_and_found_again() -> None:
    route = "ä" * 200
    memory = fresh(2)
    for _ in range(3):
        StatsWriter(memoryview(memory), (route,)).refused(0, "draining")
    assert read(bytes(memory))[clip(route)].answered == 3


@pytest.mark.parametrize("at", [0, 8, 24])
def test_what_is_no_file_of_statistics_is_said_to_be_none(at: int) -> None:
    memory = fresh()
    StatsWriter(memoryview(memory), ROUTES)
    memory[at + 7] ^= 0x80
    with pytest.raises(StatsError):
        StatsWriter(memoryview(memory), ROUTES)
    if at != 24:
        with pytest.raises(StatsError):
            read(bytes(memory))


@given(st.binary(min_size=8, max_size=8), st.integers(0, 2), st.integers(0, 159))
def test_a_stray_write_breaks_neither_reader_nor_the_next_writer(word: bytes, place: int, at: int) -> None:
    memory = fresh(4)
    StatsWriter(memoryview(memory), ("a", "b")).refused(0, "draining")
    position = HEADER_SIZE + place * 1280 + at * 8
    memory[position : position + 8] = word
    files = [read(bytes(memory))] * 100
    for stats in add_up(files).values():
        orjson.dumps([stats.answered, *stats.numbers])  # which takes no more than 64 bits
    writer = StatsWriter(memoryview(memory), ("a", "b"))
    writer.refused(1, "draining")
    writer.failed(1, "other", 1.0, 1.0)
    assert read(bytes(memory))["b"].answered > 0


def test_only_the_places_in_use_need_to_be_read() -> None:
    memory = fresh(100)
    StatsWriter(memoryview(memory), ROUTES).refused(2, "draining")
    used = used_size(bytes(memory[:HEADER_SIZE]))
    assert used == file_size(3) < len(memory)
    assert read(bytes(memory[:used])) == read(bytes(memory))


def test_a_file_whose_header_was_written_over_has_no_more_places_than_any() -> None:
    memory = fresh()
    StatsWriter(memoryview(memory), ROUTES)
    memory[16:32] = b"\xff" * 16
    assert used_size(bytes(memory)) <= file_size(4096)


def test_every_stable_word_has_a_counter() -> None:
    assert {reason.value for reason in FailureReason} < set(REASONS)
