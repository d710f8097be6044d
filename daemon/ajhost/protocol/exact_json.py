"""JSON that foreign programs wrote, read without losing a digit.

orjson turns an integer that 64 bits cannot hold into a float, silently. Payloads and dependency results hold such
integers (bank references, Ethereum amounts, numeric(38) of a database), so a text that may have one is read again by
the standard library, whose integers have no limit.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, Self

import orjson

_DIGITS_OF_A_LONG = 19
"""2**63 has as many."""
_LONG = re.compile(rb"[0-9]{%d}" % _DIGITS_OF_A_LONG)
_LONG_FRACTION = re.compile(rb"(?<![0-9])(?=[0-9.]{17})[0-9]++\.[0-9]|[0-9]{16}[eE]")
"""A double holds any 15 digits. A run of digits, which may have any length, is looked at from its first one alone."""
_NAME = re.compile(r"[^-NI]?(NaN|-?Infinity)")
_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_STRIDE = 6
_RUN = b"0" * 3
"""Of every sixth byte, a run of 19 digits shows at least three in a row."""


def loads(text: bytes) -> Any:
    """The value of a JSON text; its integers are exact, whatever their size.

    :raises ValueError: it is not JSON. NaN, Infinity and numbers beyond a double's range are not JSON either.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _beyond_a_double(text, error)
    return exact(text) if len(text) >= _DIGITS_OF_A_LONG and has_long_integers(text) else value


class _Digits(float):
    """A number of JSON with the digits that it was written with, as its text: what `Decimal(str(number))` reads."""

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, _float(text))
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text


def loads_digits(text: bytes) -> Any:
    """As `exact`, but numbers with a fraction keep their digits as their text.

    None if a double holds them all, or the text has more levels than Python reads.
    """
    if _LONG_FRACTION.search(text) is None:
        return None
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_Digits)
    except RecursionError:
        return None


def has_long_integers(text: bytes) -> bool:
    """Whether orjson may have lost digits of an integer in `text`. Cheap where it has not: no digits, no search."""
    return _RUN in text[_STRIDE - 1 :: _STRIDE].translate(_DIGITS) and _LONG.search(text) is not None


def check(text: bytes) -> None:
    """:raises ValueError: `text` is not JSON by the rules of `loads`."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _beyond_a_double(text, error)


def is_json(text: bytes) -> bool:
    """Whether `text` is JSON by the rules of `loads`."""
    try:
        check(text)
    except ValueError:
        return False
    return True


def exact(text: bytes) -> Any:
    """As `loads`, of a text that orjson has read. :raises ValueError: more digits or levels than Python reads."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_float)
    except RecursionError:
        raise ValueError("it is nested too deeply for integers of more than 64 bits") from None


def _beyond_a_double(text: bytes, error: orjson.JSONDecodeError) -> Any:
    """orjson refuses integers of more than 308 digits, as it would make floats of them."""
    if "infinity" not in str(error):
        raise ValueError(_reason(error)) from None
    value = exact(text)
    json.dumps(
        value, ensure_ascii=False
    ).encode()  # halves of surrogate pairs, which orjson refuses, have no UTF-8
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:32]} is beyond the range of a double")
    return number


def _reason(error: orjson.JSONDecodeError) -> str:
    """orjson's text, but for the names that other encoders write for what JSON does not have."""
    found = _NAME.match(error.doc, max(error.pos - 1, 0))
    if found is None:
        return str(error)
    return f"{found[1]} is no number of JSON's: line {error.lineno} column {error.colno}"
