"""Converts moments as the router writes them: RFC 3339 text to integer nanoseconds since 1970, and back.

Moments are integers, since a float would lose digits that a signature covers, and `datetime` has no nanoseconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

ZERO_TIME = -62_135_596_800 * SECOND
"""Go's zero `time.Time`, `0001-01-01T00:00:00Z`: the value of a time that was never set."""

_BASE_YEAR = 1970
_EPOCH = datetime(_BASE_YEAR, 1, 1, tzinfo=UTC)
_CYCLE_YEARS, _CYCLE = 400, 146_097 * 86_400
"""After so many years, and seconds, the Gregorian calendar repeats: `datetime` itself has no year 0."""
_EARLIEST = ZERO_TIME
_LATEST = 253_402_300_799 * SECOND
_SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\Z")
_OFFSET = re.compile(r"[+-][0-9]{2}:[0-9]{2}\Z")
_SCALE: tuple[int, ...] = tuple(int(10 ** (9 - digits)) for digits in range(10))


def parse(text: str) -> int:
    """Returns the nanoseconds since 1970-01-01T00:00:00Z of an RFC 3339 moment with 0 to 9 fractional digits.

    As strict as Go's `Time.UnmarshalJSON`: upper case `T` and `Z`, two digits everywhere, no second 60, a day that
    its month has. Years 0000 to 9999. Raises ValueError, whose text shows what was found.
    """
    try:
        nanoseconds = _second(text[:19])
        fraction = text[20:-1]
        if fraction.isdecimal() and text[19] == "." and text[-1] == "Z" and text.isascii():
            return nanoseconds + int(fraction) * _SCALE[len(fraction)]  # as a router writes its own times
        zone = -1 if text[-1] == "Z" else -6
        if text[19] == ".":
            fraction = text[20:zone]
            if not fraction.isdecimal() or not fraction.isascii():
                raise _malformed(text)
            nanoseconds += int(fraction) * _SCALE[len(fraction)]
        elif len(text) != 19 - zone:
            raise _malformed(text)
        return nanoseconds if zone == -1 else nanoseconds - _offset(text[zone:]) * SECOND
    except (ValueError, IndexError):
        raise _malformed(text) from None


def render(nanoseconds: int) -> str:
    """Writes the moment in UTC with as many fractional digits as it needs, as Go's RFC3339Nano.

    Raises ValueError for a year outside 0000 to 9999.
    """
    text = render_seconds(nanoseconds)
    fraction = nanoseconds % SECOND
    if not fraction:
        return text
    return f"{text[:-1]}.{fraction:09d}".rstrip("0") + "Z"


def render_seconds(nanoseconds: int) -> str:
    """Writes the moment in UTC with its fraction cut off, as the router's deadline header (Go's RFC3339).

    Raises ValueError for a year outside 0000 to 9999.
    """
    cycles, seconds = divmod(nanoseconds // SECOND, _CYCLE)
    moment = _EPOCH + timedelta(seconds=seconds)
    year = moment.year + cycles * _CYCLE_YEARS
    if not 0 <= year <= 9999:
        raise ValueError(f"a moment in the year {year} has no RFC 3339 form")
    return f"{year:04d}-{moment:%m-%dT%H:%M:%SZ}"


def to_datetime(nanoseconds: int) -> datetime:
    """Returns the moment as an aware datetime in UTC, cut to microseconds, clamped to the range of datetime."""
    clamped = min(max(nanoseconds, _EARLIEST), _LATEST)
    return _EPOCH + timedelta(microseconds=clamped // 1000)


def _malformed(text: str) -> ValueError:
    shown = text if len(text) <= 64 else text[:64] + "..."
    return ValueError(f"{shown!r} is not an RFC 3339 time with at most 9 fractional digits")


@lru_cache(maxsize=1024)
def _second(shape: str) -> int:
    """Returns the nanoseconds since 1970 of `yyyy-mm-ddThh:mm:ss` in UTC. Cached: many tasks share one second."""
    if not _SHAPE.match(shape):
        raise ValueError(shape)
    month, day, hour, minute, second = (int(shape[at : at + 2]) for at in (5, 8, 11, 14, 17))
    cycles, year = divmod(int(shape[:4]) - _BASE_YEAR, _CYCLE_YEARS)
    moment = datetime(_BASE_YEAR + year, month, day, hour, minute, second, tzinfo=UTC)
    return ((moment - _EPOCH) // timedelta(seconds=1) + cycles * _CYCLE) * SECOND


def _offset(rest: str) -> int:
    """Returns the seconds by which `+hh:mm` or `-hh:mm` is ahead of UTC."""
    if not _OFFSET.match(rest):
        raise ValueError(rest)
    hours, minutes = int(rest[1:3]), int(rest[4:])
    if hours > 23 or minutes > 59:
        raise ValueError(rest)
    seconds = hours * 3600 + minutes * 60
    return -seconds if rest[0] == "-" else seconds
