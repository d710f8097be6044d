"""Deadlines: the router's wall clock turned into this machine's monotonic one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.core.clock_offset import Skew
from ajhost.core.deadline_budget import budget
from ajhost.core.timings import SKEW_PLAUSIBLE

NOW = 1_795_521_356_500_000_000
MONO = 1000.0
SECOND = 1_000_000_000
MARGIN = 0.1


def remaining(
    header: float | None,
    tried: float | None,
    timeout: float | None = None,
    ahead: float = 0.0,
    margin: float = MARGIN,
) -> float:
    """Seconds that a request has; header and tried are in seconds from now."""
    header_ns = None if header is None else NOW + round(header * SECOND)
    tried_ns = None if tried is None else NOW + round(tried * SECOND)
    return budget(header_ns, tried_ns, NOW, MONO, timeout, 60.0, margin, ahead)[0] - MONO


@pytest.mark.parametrize(
    ("header", "tried", "timeout", "seconds"),
    [
        pytest.param(None, None, None, 60.0, id="no header: the default"),
        pytest.param(None, -1.0, 5.0, 5.0, id="no header: the route's timeout caps the default"),
        pytest.param(None, None, 90.0, 60.0, id="a timeout never extends"),
        pytest.param(10.0, None, None, 9.9, id="the header less the margin"),
        pytest.param(10.0, None, 3.0, 3.0, id="the timeout is whole, without a margin"),
        pytest.param(10.0, 0.0, None, 9.9, id="just sent"),
        pytest.param(10.0, -5.0, None, 9.9, id="five seconds on its way: what is left counts"),
        pytest.param(40.0, 30.0, None, 9.9, id="our clock 30 s behind: the budget counts"),
        pytest.param(0.5, 0.0, None, 0.4, id="the shortest that a router sends"),
        pytest.param(0.05, 0.0, None, 0.0, id="within the margin is past"),
        pytest.param(-1.0, -10.0, None, 0.0, id="past"),
        pytest.param(10.0, 20.0, None, 9.9, id="tried after the header is impossible: ignored"),
        pytest.param(10.0, -1e9, None, 9.9, id="tried ages ago changes nothing"),
    ],
)
def test_what_a_request_has(header: float | None, tried: float | None, timeout: float | None, seconds: float) -> None:
    assert remaining(header, tried, timeout) == pytest.approx(seconds, abs=1e-6)


def test_a_clock_that_is_known_to_be_ahead_is_corrected_for() -> None:
    assert remaining(-20.0, -30.0) == 0.0
    assert remaining(-20.0, -30.0, ahead=30.0) == pytest.approx(9.9)
    assert remaining(-20.0, -32.0, ahead=30.0) == pytest.approx(9.9), "two seconds on its way still count"


MOMENTS = st.one_of(st.none(), st.floats(-100, 100), st.floats(-6e10, 2e11))


@given(MOMENTS, MOMENTS, st.one_of(st.none(), st.floats(0.001, 1e6)), st.floats(0, 1e6), st.floats(0, 1))
@settings(max_examples=300)
def test_no_request_has_longer_than_its_header_its_route_and_a_plausible_skew_allow(
    header: float | None, tried: float | None, timeout: float | None, ahead: float, margin: float
) -> None:
    seconds = remaining(header, tried, timeout, ahead, margin)
    assert seconds >= 0.0
    limit = 60.0 if header is None else max(header + min(ahead, SKEW_PLAUSIBLE) - margin, 0.0)
    assert seconds <= limit + 1e-3
    if timeout is not None:
        assert seconds <= timeout + 1e-6


@given(st.floats(-100, 100), st.floats(-100, 100))
@settings(max_examples=300)
def test_without_a_known_skew_a_forged_tried_only_shortens(header: float, tried: float) -> None:
    assert remaining(header, tried) <= remaining(header, None)


def test_a_deadline_in_the_year_9999_stays_a_number_that_fits_into_64_bits_of_nanoseconds() -> None:
    assert remaining(2.5e11, None) == pytest.approx(366 * 86_400, rel=1e-6)


def test_the_skew_that_one_request_shows_is_reported() -> None:
    assert budget(NOW, NOW - 3 * SECOND, NOW, MONO, None, 60.0, MARGIN, 0.0)[1] == 3.0
    assert budget(NOW, NOW + 3 * SECOND, NOW, MONO, None, 60.0, MARGIN, 0.0)[1] == -3.0
    assert budget(NOW, None, NOW, MONO, None, 60.0, MARGIN, 0.0)[1] == 0.0


def observed(*seen: tuple[float, float]) -> float:
    """What is known after requests of (skew, moment)."""
    skew = Skew(0.0)
    for seconds, moment in seen:
        skew.observe(seconds, moment)
    return skew.ahead


@pytest.mark.parametrize(
    ("seen", "ahead"),
    [
        pytest.param([], 0.0, id="nothing seen"),
        pytest.param([(9.0, 0.0)], 0.0, id="one request says nothing"),
        pytest.param([(9.0, 0.0), (8.0, 29.0)], 0.0, id="nor do those of less than half a minute"),
        pytest.param([(9.0, 0.0), (8.0, 31.0)], 8.0, id="the freshest of half a minute does"),
        pytest.param([(5.0, 0.0), (0.001, 15.0), (9.0, 31.0)], 0.0, id="a backlog is no skew"),
        pytest.param([(0.2, 0.0), (0.2, 31.0)], 0.0, id="small differences are left alone"),
        pytest.param([(9.0, 0.0), (-1e6, 15.0), (9.0, 31.0)], 0.0, id="a forged future only ends the correction"),
        pytest.param([(9.0, 0.0), (1e6, 15.0), (9.0, 31.0)], 9.0, id="a forged past does nothing"),
        pytest.param([(9000.0, 0.0), (9000.0, 31.0)], 0.0, id="an implausible skew is not believed"),
        pytest.param([(9.0, 0.0), (9.0, 31.0), (9.0, 32.0), (0.01, 33.0)], 0.0, id="a clock set right counts at once"),
        pytest.param([(9.0, 0.0), (9.0, 31.0), (0.01, 32.0)], 0.0, id="the first of a new window counts too"),
    ],
)
def test_how_far_our_clock_is_ahead(seen: list[tuple[float, float]], ahead: float) -> None:
    assert observed(*seen) == ahead
