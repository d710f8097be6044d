"""Reads JSON of other programs without losing a digit. Refuses NaN, Infinity, and numbers beyond a double, as `1e999`.

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
"""2**63 has as many digits."""
_LONG = re.compile(rb"[0-9]{%d}" % _DIGITS_OF_A_LONG)
_LONG_FRACTION = re.compile(rb"(?<![0-9])(?=[0-9.]{17})[0-9]++\.[0-9]|[0-9]{16}[eE]")
"""A double holds any 15 digits. A run of digits, which may have any length, is tried from its first digit only."""
_NAME = re.compile(r"[^-NI]?(NaN|-?Infinity)")
_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_STRIDE = 6
_RUN = b"0" * 3
"""Of every sixth byte, a run of 19 digits shows at least three in a row."""


def loads(text: bytes) -> Any:
    """Returns the value of a JSON text; its integers are exact, whatever their size.

    :raises ValueError: it is not JSON, or has NaN, Infinity or a number beyond a double's range.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _beyond_a_double(text, error)
    return exact(text) if len(text) >= _DIGITS_OF_A_LONG and has_long_integers(text) else value


class _Digits(float):
    """A number whose text has the digits of the JSON text, so that `Decimal(str(number))` is exact."""

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, _float(text))
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text


def loads_digits(text: bytes) -> Any:
    """Reads a text as `exact` does, but the text of a number with a fraction keeps its digits (`_Digits`).

    Returns None if a double holds all digits, or the text has more levels than Python reads.
    """
    if _LONG_FRACTION.search(text) is None:
        return None
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_Digits)
    except RecursionError:
        return None


def has_long_integers(text: bytes) -> bool:
    """Whether orjson may have lost digits of an integer in `text`. It searches only a text with runs of digits."""
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
    """Reads a text that orjson has read, as `loads`. :raises ValueError: more digits or levels than Python reads."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_float)
    except RecursionError:
        raise ValueError("it is nested too deeply for integers of more than 64 bits") from None


def _beyond_a_double(text: bytes, error: orjson.JSONDecodeError) -> Any:
    """Reads a text with an integer of more than 308 digits. orjson refuses it: as a float it would be infinite."""
    if "infinity" not in str(error):
        raise ValueError(_reason(error)) from None
    value = exact(text)
    json.dumps(value, ensure_ascii=False).encode()  # halves of surrogate pairs, which orjson refuses, have no UTF-8
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:32]} is beyond the range of a double")
    return number


def _reason(error: orjson.JSONDecodeError) -> str:
    """Returns orjson's text, or one that names NaN or Infinity, which other encoders write and JSON does not have."""
    found = _NAME.match(error.doc, max(error.pos - 1, 0))
    if found is None:
        return str(error)
    return f"{found[1]} is no number of JSON's: line {error.lineno} column {error.colno}"
