"""Encodes what handlers return as JSON: by orjson, and by pydantic's encoder what orjson does not know. Finds what JSON
cannot express (`invalid result:`), NaN for example, and names its place and type. A result that itself is bytes, a str
or None is sent as it is (`roles/worker/handler_outcome.py`).

    float, int, str, None, dict, list ...    as JSON has them; integers of any size; NaN and infinities are errors
    dataclass, attrs, TypedDict, Enum, UUID  fields, items, value, text
    datetime, date, time, timedelta          RFC 3339; timedelta ISO 8601
    pydantic models and dataclasses          as pydantic's own `model_dump_json()` of them
    namedtuple, set, deque, range, views     a list; other mappings are objects
    Decimal, Path, IP addresses ...          a text
    bytes                                    base64 of the standard alphabet, as Go's `encoding/json` has it
    numpy scalars and arrays                 numbers, lists

`docs/handlers.md` has the same table, which a test compares with what this module does.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import inspect
import json
import math
import numbers
import sys
from collections import UserString, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from datetime import date, datetime, time, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import NoneType
from typing import Any

import orjson

_OPTIONS = (
    orjson.OPT_SERIALIZE_NUMPY
    | orjson.OPT_NON_STR_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
"""orjson 3.13 ends the process by SIGSEGV where an attribute that it reads is missing or raises: a field in slots that
was never set, a tzinfo's `utcoffset`. It calls `_default` for dataclasses and times. For an Enum, whose `value` may
raise as well, it has no such option. It would also take a dataclass of pydantic's for any other, and leave out its
serializers, aliases and computed fields.
"""
_NULL = b"null"
_NAMES_BY_CONFIG = (2, 33)
"""The pydantic-core of pydantic 2.11."""
_DEEPEST = 250
"""Levels that are followed; orjson follows 254, and a circle has no end."""
_SHOWN = 100
"""Characters of a place that are shown: keys may be long, and secret."""
_FINER_THAN_MICROSECONDS = ("ns", "ps", "fs", "as")
_BYTES = (bytes, bytearray, memoryview)
_PLAIN = (str, bool, type(None))

# past a metaclass that has a `__name__` of its own
_name_of = type.__dict__["__name__"].__get__


class CannotEncode(Exception):
    """A value has no form in JSON. The text names the place and the type: `result.items[2].owner: acme.User ...`."""


class _Placed(CannotEncode):
    """The text has the place already."""

    def __init__(self, place: str, text: str) -> None:
        super().__init__(f"{place if len(place) <= _SHOWN else f'{place[:_SHOWN]}...'}: {text}")


def encode(value: object) -> bytes:
    """Returns `value` as JSON.

    :raises CannotEncode: naming what cannot be encoded, and where it is.
    """
    try:
        body = orjson.dumps(value, _default, _OPTIONS)
    except MemoryError:
        raise
    except Exception as error:  # TypeError of orjson; anything of the value's own methods
        return _slowly(value, error)
    if _NULL in body:
        _refuse_nan(value)  # orjson writes NaN as null
    return body


# -- what orjson does not know ---------------------------------------------------------------------


def _default(value: Any) -> Any:
    """Returns what orjson encodes in place of `value`. Raises TypeError where there is nothing."""
    if isinstance(value, (set, frozenset, tuple, deque)):
        return list(value)
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, _BYTES):
        return base64.b64encode(value).decode()
    if (serializer := getattr(type(value), "__pydantic_serializer__", None)) is not None:
        return _dumped(value, serializer)
    if _is_dataclass(value):
        return _fields(value)
    if isinstance(value, Decimal) and not value.is_finite():
        raise CannotEncode(f"{value} is not a number that JSON has")
    if _is_numpy(value):
        plain = _numpy_times(value) if value.dtype.kind in "mM" else value.tolist()
        if type(plain) is not type(value):
            return plain
    standard = _standard(value)
    return _by_pydantic(value) if standard is value else standard


def _standard(value: Any) -> Any:
    """Returns a collection of another library or of a program's own as dict or list; anything else as it is."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, UserString | PurePath):
        return str(value)
    if isinstance(value, Set | Sequence | ValuesView) and not isinstance(value, (str, *_BYTES)):
        return list(value)
    if isinstance(attributes := getattr(type(value), "__attrs_attrs__", None), tuple):
        return {a.name: getattr(value, a.name) for a in attributes if not a.name.startswith("_")}
    return value.isoformat() if isinstance(value, date | time) else value


def _moment(value: datetime) -> orjson.Fragment:
    if type(value.tzinfo) not in (NoneType, timezone):
        offset = value.utcoffset()  # raises here what would end the process in orjson
        value = value.replace(tzinfo=None if offset is None else timezone(offset))
    return orjson.Fragment(orjson.dumps(value))


def _fields(value: Any) -> dict[str, Any]:
    """Returns the fields that are set: one of `field(init=False)` need not be."""
    names = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _dumped(value: Any, serializer: Any) -> Any:
    """Returns a model as it encodes itself. Looks into it for a NaN if the text may hide one."""
    text = serializer.to_json(value, **_names())
    # by default pydantic writes NaN as null, and as NaN where the model says so
    if _NULL in text or b"NaN" in text or b"Infinity" in text:
        _refuse_nan(serializer.to_python(value, mode="python"))
    return orjson.Fragment(text)


@functools.cache
def _names() -> dict[str, bool]:
    """Serializers of pydantic 2.10 give a field's alias unless told otherwise, as `model_dump_json()` tells them."""
    from pydantic_core import __version__

    return {} if tuple(map(int, __version__.split(".")[:2])) >= _NAMES_BY_CONFIG else {"by_alias": False}


def _by_pydantic(value: Any) -> Any:
    if isinstance(value, Iterator):
        raise TypeError("an iterator")
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, inf_nan_mode="constants")


def _numpy_times(value: Any) -> Any:
    """Returns a datetime64, a timedelta64, or an array of them, as times of the standard library.

    numpy's `tolist` makes None of NaT, and plain numbers of what those cannot hold.
    """
    numpy = sys.modules["numpy"]
    unit, _ = numpy.datetime_data(value.dtype)
    if numpy.isnat(value).any():
        raise CannotEncode("NaT is not a time that JSON has")
    if value.dtype.kind == "m" and unit in ("Y", "M", "generic"):
        raise CannotEncode(f"a timedelta64 of the unit {unit} is no length of time")
    plain = (value.astype(f"{value.dtype.kind}8[us]") if unit in _FINER_THAN_MICROSECONDS else value).tolist()
    if any(isinstance(moment, int) for moment in numpy.array(plain, dtype=object).flat):
        raise CannotEncode("a time beyond those that Python has, of the years 1 to 9999")
    return plain


def _is_dataclass(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_numpy(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


# -- NaN -------------------------------------------------------------------------------------------


def _refuse_nan(value: object) -> None:
    try:
        _STRICT.encode(value)
    except Exception:  # a NaN, or what the standard library does not know: looked at one by one
        _plain(value, "result", 0)


_STRICT = json.JSONEncoder(allow_nan=False, check_circular=False)
"""For values of the standard types, the quickest way to find a NaN among them."""


# -- one by one ------------------------------------------------------------------------------------


def _slowly(value: object, error: Exception) -> bytes:
    """Encodes where orjson gave up: integers beyond 64 bits are encoded; an error names whatever else it was."""
    try:
        plain = _plain(value, "result", 0)
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise CannotEncode(f"result: a text that UTF-8 cannot hold ({_text(error)})") from None
    except RecursionError:
        raise CannotEncode(f"result: {_kind(value)}, which is nested too deeply") from None


def _plain(value: Any, place: str, depth: int) -> Any:
    """Returns `value` in the types of the standard library's JSON, or raises CannotEncode with the place."""
    if depth > _DEEPEST:
        raise _Placed(place, "nested too deeply, or in a circle")
    if isinstance(value, Enum):
        return _plain(value.value, place, depth + 1)
    if isinstance(value, _PLAIN):
        return _text_at(value, place) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Placed(place, f"{float(value)} is not a number that JSON has")
        return float(value)
    if isinstance(value, dict):
        return {_key(key, place): _plain(item, f"{place}.{key}", depth + 1) for key, item in list(value.items())}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [_plain(item, f"{place}[{at}]", depth + 1) for at, item in enumerate(list(value))]
    return _leaf(value, place, depth)


def _leaf(value: Any, place: str, depth: int) -> Any:
    try:
        if (serializer := getattr(type(value), "__pydantic_serializer__", None)) is not None:
            plain: Any = serializer.to_python(value, mode="python")
            if type(plain) is not type(value):
                _plain(plain, place, depth + 1)  # finds a NaN, which the model would write as null
            return json.loads(serializer.to_json(value, **_names()))
        plain = _default(value) if _is_numpy(value) or _is_dataclass(value) else _standard(value)
        if plain is value:
            return json.loads(orjson.dumps(value, _default, _OPTIONS))
    except CannotEncode as error:
        raise _placed(error, place) from None
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, CannotEncode):  # of `_default`, which orjson had called
            raise _placed(error.__cause__, place) from None
        raise _Placed(place, f"{_kind(value)} cannot be encoded as JSON{_why(error)}{_cure(value)}") from None
    return _plain(plain, place, depth + 1)


def _placed(error: CannotEncode, place: str) -> CannotEncode:
    return error if isinstance(error, _Placed) else _Placed(place, _text(error))


def _key(key: Any, place: str) -> str:
    if isinstance(key, str) and not isinstance(key, Enum):
        return _text_at(key, place)
    if isinstance(key, float) and not math.isfinite(key):
        raise _Placed(place, f"the key {float(key)} is not a number that JSON has")
    if isinstance(key, int) and not isinstance(key, (bool, Enum)):
        return str(int(key))
    if _is_numpy(key) and type(plain := key.item()) is not type(key):
        return _key(plain, place)
    if not isinstance(key, (*_BYTES, tuple, Mapping, set, frozenset)):
        try:
            (text,) = json.loads(orjson.dumps({key: None}, option=_OPTIONS))
        except Exception:
            text = _default_key(key)
        if isinstance(text, str):
            return text
    raise _Placed(place, f"a key of type {_kind(key)}; JSON has texts as keys")


def _default_key(key: Any) -> object:
    try:
        return _default(key)
    except Exception:
        return None


def _text_at(text: str, place: str) -> str:
    try:
        str.encode(text)
    except UnicodeEncodeError as error:
        raise _Placed(place, f"a text that UTF-8 cannot hold ({error.reason})") from None
    return "".join((text,))  # a plain str, where it was of a subclass


def _kind(value: object) -> str:
    """Returns `module.Class`; of classes of `builtins` and `__main__` only the class."""
    kind = type(value)
    module = type.__dict__["__module__"].__get__(kind)
    name = str(_name_of(kind))
    return name if module in ("builtins", "__main__") or not isinstance(module, str) else f"{module}.{name}"


def _why(error: BaseException) -> str:
    """Returns the reason, where it says more than that the type is unknown."""
    text = _text(error)
    known = ("Type is not JSON serializable", "Unable to serialize unknown type", "an iterator")
    return "" if not text or text.startswith(known) else f" ({type(error).__name__}: {text})"


def _cure(value: object) -> str:
    """Returns the end of an error text: what to return instead, for values that handlers often return."""
    kind = type(value)
    with contextlib.suppress(Exception):
        if inspect.isawaitable(value):
            return "; it was not awaited"
        if inspect.isasyncgen(value):
            return "; return a list of it: [item async for item in ...]"
        if isinstance(value, BaseException):
            return "; raise it"
        if isinstance(value, type):
            return f"; it is the class {_name_of(value)} itself"
        if _is_numpy(value) and isinstance(value, numbers.Real):  # numpy.longdouble
            return "; return float() of it"
        for method in ("to_dict", "to_dicts", "tolist", "read"):  # of pandas, polars, arrays, files
            if callable(getattr(kind, method, None)):
                return f"; return what its {method}() makes"
        if isinstance(value, Iterable):  # generators, Django's querysets
            return "; return a list of it"
    return ""


def _text(error: BaseException) -> str:
    try:
        return "".join((str(error),))
    except BaseException:
        return ""
