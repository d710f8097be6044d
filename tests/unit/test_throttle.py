"""The same thing is told once in a while, with how often it has happened."""

from __future__ import annotations

from ajhost.core.throttle import Throttle


def test_the_first_is_told_at_once_and_the_rest_with_their_number() -> None:
    throttle = Throttle(30.0)
    assert [throttle.count("a", now) for now in (0.0, 1.0, 29.9)] == [1, 0, 0]
    assert throttle.count("b", 29.9) == 1
    assert throttle.count("a", 30.0) == 3
    assert throttle.count("a", 31.0) == 0


def test_names_from_outside_do_not_pile_up() -> None:
    throttle = Throttle(30.0, names=2)
    for number in range(1000):
        assert throttle.count(str(number), 0.0) == 1
    assert throttle.count("999", 0.0) == 0
    assert throttle.count("998", 0.0) == 0
    assert throttle.count("997", 0.0) == 1
