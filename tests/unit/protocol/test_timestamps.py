"""RFC 3339 moments to nanoseconds and back."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.protocol import timestamps

FIRST = timestamps.parse("0000-01-01T00:00:00Z")
LAST = timestamps.parse("9999-12-31T23:59:59.999999999Z")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2009-11-10T23:00:00Z", 1_257_894_000_000_000_000),
        ("2026-11-24T11:55:56.123456789Z", 1_795_521_356_123_456_789),
        ("2027-01-02T03:04:05.06+05:30", 1_798_839_245_060_000_000),
        ("1970-01-01T00:00:00-00:30", 1_800_000_000_000),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
        ("2000-02-29T12:00:00+00:00", 951_825_600_000_000_000),
        ("0001-01-01T00:00:00Z", timestamps.ZERO_TIME),
    ],
)
def test_a_moment_keeps_every_nanosecond(text: str, nanoseconds: int) -> None:
    assert timestamps.parse(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2026-11-24",
        "2026-11-24T11:55Z",
        "2026-11-24T11:55:56",
        "2026-11-24 11:55:56Z",
        "2026-11-24t11:55:56z",
        "2026-11-24T11:55:56.Z",
        "2026-11-24T11:55:56.1234567890Z",
        "2026-11-24T11:55:56,5Z",
        "2026-11-24T11:55:56.1_2Z",
        "2026-11-24T11:55:56.-1Z",
        "2026-11-24T11:55:56.٣Z",
        "٢٠٢٦-11-24T11:55:56Z",
        "2026-11-24T11:55:60Z",
        "2026-11-24T11:60:56Z",
        "2026-11-24T24:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-11-00T00:00:00Z",
        "2026-11-24T11:55:56+24:00",
        "2026-11-24T11:55:56+01:60",
        "2026-11-24T11:55:56+0100",
        "2026-11-24T11:55:56.5+1:00",
        "2026-11-24T11:55:56ZZ",
        "2026-11-24T11:55:56Z\n",
        "+026-11-24T11:55:56Z",
        "12026-11-24T11:55:56Z",
    ],
)
def test_what_is_no_moment_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ValueError, match="is not an RFC 3339 time") as caught:
        timestamps.parse(text)
    assert repr(text) in str(caught.value)


def test_a_long_malformed_moment_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match="xxx") as caught:
        timestamps.parse("x" * 100_000)
    assert len(str(caught.value)) < 200


@given(st.integers(FIRST, LAST))
@settings(max_examples=300)
def test_every_moment_survives_being_written_and_read(nanoseconds: int) -> None:
    assert timestamps.parse(timestamps.render(nanoseconds)) == nanoseconds


@given(st.integers(FIRST, LAST))
@settings(max_examples=300)
def test_a_moment_in_whole_seconds_is_the_one_before(nanoseconds: int) -> None:
    assert (
        timestamps.parse(timestamps.render_seconds(nanoseconds)) == nanoseconds // timestamps.SECOND * timestamps.SECOND
    )


@given(st.datetimes(timezones=st.just(UTC)))
@settings(max_examples=300)
def test_the_calendar_is_that_of_datetime(moment: datetime) -> None:
    nanoseconds = timestamps.parse(moment.isoformat().replace("+00:00", "Z"))
    assert timestamps.to_datetime(nanoseconds) == moment
    assert nanoseconds == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_moment_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(timestamps.parse(text), int)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (100, "1970-01-01T00:00:00.0000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (timestamps.ZERO_TIME, "0001-01-01T00:00:00Z"),
        (1_795_521_356_100_000_000, "2026-11-24T11:55:56.1Z"),
    ],
)
def test_a_moment_is_written_as_go_writes_it(nanoseconds: int, text: str) -> None:
    assert timestamps.render(nanoseconds) == text


@pytest.mark.parametrize("nanoseconds", [FIRST - 1, LAST + 1, -(1 << 80), 1 << 80])
def test_a_moment_beyond_four_digits_of_year_is_refused(nanoseconds: int) -> None:
    with pytest.raises(ValueError, match="has no RFC 3339 form"):
        timestamps.render(nanoseconds)


def test_a_moment_that_datetime_cannot_hold_is_clamped() -> None:
    assert timestamps.to_datetime(FIRST) == datetime(1, 1, 1, tzinfo=UTC)
    assert timestamps.to_datetime(1 << 80).year == 9999
