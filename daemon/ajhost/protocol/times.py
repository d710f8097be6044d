"""Moments as the router writes them: RFC 3339 text to integer nanoseconds since 1970, and back.

Go keeps nanoseconds and has a zero time in the year 1, so everything here is integer arithmetic over the proleptic
Gregorian calendar: a float would lose digits that a signature covers, and `datetime` has neither nanoseconds nor
the year 0.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND = 1_000_000_000
"""Nanoseconds in a second."""

ZERO_TIME = -62_135_596_800 * SECOND
"""Go's zero `time.Time`, `0001-01-01T00:00:00Z`: what a time is that was never set."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = ZERO_TIME
_LATEST = 253_402_300_799 * SECOND
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SHAPE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\Z")
_OFFSET = re.compile(r"[+-][0-9]{2}:[0-9]{2}\Z")
_SCALE: tuple[int, ...] = tuple(int(10 ** (9 - digits)) for digits in range(10))


def parse(text: str) -> int:
    """Nanoseconds since 1970-01-01T00:00:00Z of an RFC 3339 moment with 0 to 9 fractional digits.

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
    """The moment in UTC with as many fractional digits as it needs: what Go's RFC3339Nano writes.

    Raises ValueError for a year outside 0000 to 9999.
    """
    text = render_seconds(nanoseconds)
    fraction = nanoseconds % SECOND
    if not fraction:
        return text
    return f"{text[:-1]}.{fraction:09d}".rstrip("0") + "Z"


def render_seconds(nanoseconds: int) -> str:
    """The moment in UTC with its fraction cut off, as the router writes its deadline header (Go's RFC3339).

    Raises ValueError for a year outside 0000 to 9999.
    """
    days, second = divmod(nanoseconds // SECOND, 86_400)
    year, month, day = _civil(days)
    if not 0 <= year <= 9999:
        raise ValueError(f"a moment in the year {year} has no RFC 3339 form")
    hour, second = divmod(second, 3600)
    minute, second = divmod(second, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"


def to_datetime(nanoseconds: int) -> datetime:
    """The moment as an aware datetime in UTC, nanoseconds cut to microseconds, clamped to what datetime can hold."""
    clamped = min(max(nanoseconds, _EARLIEST), _LATEST)
    return _EPOCH + timedelta(microseconds=clamped // 1000)


def _malformed(text: str) -> ValueError:
    shown = text if len(text) <= 64 else text[:64] + "..."
    return ValueError(f"{shown!r} is not an RFC 3339 time with at most 9 fractional digits")


@lru_cache(maxsize=1024)
def _second(shape: str) -> int:
    """Nanoseconds since 1970 of `yyyy-mm-ddThh:mm:ss` in UTC. Kept, because tasks of one time share their second."""
    if not _SHAPE.match(shape):
        raise ValueError(shape)
    year, month, day = int(shape[0:4]), int(shape[5:7]), int(shape[8:10])
    hour, minute, second = int(shape[11:13]), int(shape[14:16]), int(shape[17:19])
    if (
        not 1 <= month <= 12
        or not 1 <= day <= _days_in(year, month)
        or hour > 23
        or minute > 59
        or second > 59
    ):
        raise ValueError(shape)
    return (_days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * SECOND


def _offset(rest: str) -> int:
    """Seconds that `+hh:mm` or `-hh:mm` is ahead of UTC."""
    if not _OFFSET.match(rest):
        raise ValueError(rest)
    hours, minutes = int(rest[1:3]), int(rest[4:])
    if hours > 23 or minutes > 59:
        raise ValueError(rest)
    seconds = hours * 3600 + minutes * 60
    return -seconds if rest[0] == "-" else seconds


def _days_in(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _MONTH_DAYS[month - 1]


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01. Years are counted from March, so that the leap day is the last of its year."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + day_of_year - 719_468


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1970-01-01; the inverse of `_days`."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * of_era + of_era // 4 - of_era // 100)
    from_march = (5 * day_of_year + 2) // 153
    month = from_march + 3 if from_march < 10 else from_march - 9
    return of_era + era * 400 + (month <= 2), month, day_of_year - (153 * from_march + 2) // 5 + 1
