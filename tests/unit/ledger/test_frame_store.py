"""Places in a store: never two for one byte, and none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.ledger.frame_store import FrameStore

START, SIZE = 4096, 64 * 16


@pytest.mark.parametrize(("size", "places"), [(1, 16), (64, 16), (65, 8), (128, 8), (SIZE, 1), (SIZE - 63, 1)])
def test_a_store_holds_as_many_places_as_their_rounded_sizes_fit(size: int, places: int) -> None:
    store = FrameStore(START, SIZE)
    got = [store.allocate(size) for _ in range(places)]
    assert len(set(got)) == places
    assert store.allocate(size) is None


def test_what_is_larger_than_the_store_has_no_place() -> None:
    assert FrameStore(START, SIZE).allocate(SIZE + 1) is None


def test_the_lowest_place_that_fits_is_taken() -> None:
    store = FrameStore(START, SIZE)
    first, _, third = (store.allocate(64) for _ in range(3))
    assert first is not None
    assert third is not None
    store.release(third)
    store.release(first)
    assert store.allocate(64) == START
    assert store.allocate(128) == START + 128


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)])
def test_released_neighbours_become_one_range_in_any_order(order: tuple[int, ...]) -> None:
    store = FrameStore(START, 3 * 64)
    places = [store.allocate(64) for _ in range(3)]
    for i in order:
        place = places[i]
        assert place is not None
        store.release(place)
    assert store.allocate(3 * 64) == START


def test_a_place_is_given_back_once() -> None:
    store = FrameStore(START, SIZE)
    place = store.allocate(1)
    assert place is not None
    store.release(place)
    with pytest.raises(KeyError):
        store.release(place)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=60))
def test_places_never_overlap_and_all_come_back(steps: list[tuple[bool, int]]) -> None:
    store = FrameStore(START, SIZE)
    held: dict[int, int] = {}
    for take, number in steps:
        if take:
            place = store.allocate(number)
            if place is not None:
                assert place >= START
                assert place + number <= START + SIZE
                assert all(place + number <= p or p + n <= place for p, n in held.items())
                held[place] = number
        elif held:
            place = sorted(held)[number % len(held)]
            del held[place]
            store.release(place)
    for place in held:
        store.release(place)
    assert store.allocate(SIZE) == START
