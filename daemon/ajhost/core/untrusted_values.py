"""Checks type and size of values from files that handlers' code may have overwritten; raises ValueError."""

from __future__ import annotations

import math

LARGEST = (1 << 63) - 1


def whole(value: object, most: int = LARGEST) -> int:
    """Returns a whole number from 0 to `most`."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("no such number")
    return value


def number(value: object, most: float = 1e18) -> float:
    """Returns a number from 0 to `most`."""
    if type(value) not in (int, float) or not (math.isfinite(value) and 0 <= value <= most):  # type: ignore[arg-type, operator]
        raise ValueError("no such number")
    return float(value)  # type: ignore[arg-type]


def text(value: object) -> str:
    if type(value) is not str:
        raise ValueError("no text")
    return value
