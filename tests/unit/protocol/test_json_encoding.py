"""Results as JSON: everyday types, and what has no form in it is named with its place."""

from __future__ import annotations

import asyncio
import enum
import io
import json
import math
import re
import uuid
from array import array
from collections import Counter, UserList, UserString, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, computed_field, field_serializer
from pydantic.dataclasses import dataclass as pydantic_dataclass

from ajhost.protocol.json_encoding import CannotEncode, encode
from ajhost.protocol.outcome import Completed, Terminated
from ajhost.roles.worker.handler_outcome import outcome_of_result

ROOT = Path(__file__).parents[3]


@dataclass
class Point:
    x: Any
    y: Any


class Mail(BaseModel):
    to: str
    text: str = ""


class Mixed(BaseModel):
    amount: Decimal = Decimal("1.10")
    ratio: float = 0.5
    when: datetime | None = None
    count: int = 1


class Literally(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    ratio: float
    name: str = "NaN"


@pydantic_dataclass
class Total:
    """A dataclass of pydantic's, which encodes itself."""

    amount: float
    note: str = Field(default="", exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def doubled(self) -> float:
        return self.amount * 2

    @field_serializer("amount")
    def _two_places(self, amount: float) -> str:
        return f"{amount:.2f}"


@dataclass(slots=True)
class Slots:
    total: Any = field(default_factory=lambda: Total(0))


@dataclass(slots=True)
class Unset:
    known: int = 1
    found: int = field(init=False)


class Summer(tzinfo):
    """A time zone of a program's own."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return timedelta(hours=2)

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None


class NoZone(Summer):
    """One that does not tell its offset."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        raise LookupError("no such zone")


class Hidden(BaseModel):
    key: SecretStr
    count: int


class Holder(BaseModel):
    held: Any = None


class Pair(NamedTuple):
    a: int
    b: int


class Colour(enum.Enum):
    RED = "red"


_NAMES = {
    "numpy": numpy, "Point": Point, "Mail": Mail, "Pair": Pair, "Colour": Colour, "Decimal": Decimal, "Path": Path,
    "datetime": datetime, "date": date, "timedelta": timedelta, "UTC": UTC, "UUID": uuid.UUID,
    "ip_address": ip_address, "MappingProxyType": MappingProxyType,
}  # fmt: skip


def table_of_the_docs() -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "handlers.md").read_text()
    rows = page.partition("| a handler returns | the result is |\n|---|---|\n")[2].partition("\n\n")[0]
    cells = [re.fullmatch(r"\| `(.*?)`.*? \| `?(.*?)(`.*)? \|", row) for row in rows.splitlines()]
    assert all(cells), rows
    return [(found[1], found[2]) for found in cells if found]


@pytest.mark.parametrize(("source", "body"), table_of_the_docs())
def test_the_table_of_the_docs_is_what_happens(source: str, body: str) -> None:
    value = eval(source, dict(_NAMES))
    wanted = {"the same two bytes": b"\x00\xff", "nothing": b""}.get(body, body.encode())
    assert outcome_of_result(value) == Completed(wanted)


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ({"n": 1 << 70, "s": {1}, "d": date(2026, 1, 31)}, '{"n":1180591620717411303424,"s":[1],"d":"2026-01-31"}'),
        ([Mixed(), {Decimal(1)}, Pair(1, 2)], '[{"amount":"1.10","ratio":0.5,"when":null,"count":1},["1"],[1,2]]'),
        (Mixed(count=1 << 80), '{"amount":"1.10","ratio":0.5,"when":null,"count":1208925819614629174706176}'),
        (Point(Mixed(), None), '{"x":{"amount":"1.10","ratio":0.5,"when":null,"count":1},"y":null}'),
        (Point(-(1 << 64), Mail(to="a")), '{"x":-18446744073709551616,"y":{"to":"a","text":""}}'),
        ({Colour.RED: 1, 1 << 70: 2, Path("/"): 3, None: 4}, '{"red":1,"1180591620717411303424":2,"/":3,"null":4}'),
        ({numpy.int64(4): 1}, '{"4":1}'),
        (deque([Counter("aa")]), '[{"a":2}]'),
        ([memoryview(b"ab"), bytearray(b"ab")], '["YWI=","YWI="]'),
        ({"a": numpy.array([1.5, 2.5], dtype=">f8")[::-1], "b": numpy.bool_(True)}, '{"a":[2.5,1.5],"b":true}'),
        ({"null": "null", "n": None}, '{"null":"null","n":null}'),
        ((1, (2, [3])), "[1,[2,[3]]]"),
        (Literally(ratio=1), '{"ratio":1.0,"name":"NaN"}'),
        (Total(1), '{"amount":"1.00","doubled":2.0}'),
        ({"t": [Total(1), 1 << 70]}, '{"t":[{"amount":"1.00","doubled":2.0},1180591620717411303424]}'),
        (Point(Total(1), Slots()),
         '{"x":{"amount":"1.00","doubled":2.0},"y":{"total":{"amount":"0.00","doubled":0.0}}}'),
        ([Unset()], '[{"known":1}]'),
        ({"t": [datetime(2026, 1, 31, 12, tzinfo=Summer()), date(2026, 1, 31)]},
         '{"t":["2026-01-31T12:00:00+02:00","2026-01-31"]}'),
        ([SecretStr("x"), 1 << 70], '["**********",1180591620717411303424]'),
        (Hidden(key=SecretStr("x"), count=1 << 70), '{"key":"**********","count":1180591620717411303424}'),
        ([{"a": 1}.keys(), {"a": 1}.values(), range(2)], '[["a"],[1],[0,1]]'),
        ({"m": MappingProxyType({"a": 1 << 70}), "u": UserList([UserString("x")])},
         '{"m":{"a":1180591620717411303424},"u":["x"]}'),
        ([PurePosixPath("/a"), time(1, tzinfo=UTC), array("d", [0.5])], '["/a","01:00:00+00:00",[0.5]]'),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_types_are_encoded_wherever_they_stand(value: object, body: str) -> None:
    assert encode(value) == body.encode()


class Rows:
    """As Django has them."""

    def __iter__(self) -> Iterator[int]:
        return iter([1])


class Frame:
    """As pandas has them."""

    def to_dict(self) -> dict[str, int]:
        return {}


def test_an_object_of_attrs_is_its_fields() -> None:
    attrs = pytest.importorskip("attrs")
    kind = attrs.make_class("Kind", {"a": attrs.field(), "b": attrs.field(), "_own": attrs.field(default=1)})
    assert encode([kind(1, {Decimal(2)})]) == b'[{"a":1,"b":["2"]}]'
    with pytest.raises(CannotEncode, match=r"result\[0\]\.b: nan is not a number that JSON has"):
        encode([kind(1, math.nan)])
    with pytest.raises(CannotEncode, match=r"result\.b\[0\]: object cannot be encoded as JSON"):
        encode(kind(2**70, [object()]))


def test_what_cannot_be_encoded_is_told_with_what_to_do_instead() -> None:
    async def rows() -> AsyncIterator[int]:
        yield 1

    for value, cure in ((rows(), "return a list of it: "), ([ValueError("x")], "ValueError .*; raise it")):
        with pytest.raises(CannotEncode, match=cure):
            encode(value)


async def test_a_coroutine_says_that_it_was_not_awaited() -> None:
    forgotten = asyncio.sleep(0)
    with pytest.raises(CannotEncode, match="it was not awaited"):
        encode({"c": forgotten})
    await forgotten


def _circle() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


def _circle_of(value: Any, name: str) -> object:
    setattr(value, name, value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "result: nan is not a number that JSON has"),
        ({"a": [None, {"b": float("inf")}]}, "result.a[1].b: inf is not a number that JSON has"),
        (Point(None, float("nan")), "result.y: nan is not a number that JSON has"),
        ([Mixed(ratio=-math.inf)], "result[0].ratio: -inf is not a number that JSON has"),
        ([Literally(ratio=math.nan)], "result[0].ratio: nan is not a number that JSON has"),
        ({"m": {"a": math.nan}.values()}, "result.m[0]: nan is not a number that JSON has"),
        ([Total(math.nan)], "result[0].doubled: nan is not a number that JSON has"),
        (Point(MappingProxyType({"o": object()}), 1), "result.x.o: object cannot be encoded as JSON"),
        ({"k" * 3000: object()}, f"result.{'k' * 93}...: object cannot be encoded as JSON"),
        (_circle_of(Point(1, 2), "x"), "nested too deeply, or in a circle"),
        (_circle_of(Slots(), "total"), "nested too deeply, or in a circle"),
        (_circle_of(Holder(), "held"), "nested too deeply, or in a circle"),
        ([(n for n in range(3))], "result[0]: generator cannot be encoded as JSON; return a list of it"),
        (numpy.array([[1.0, numpy.nan]]).T, "result[1][0]: nan is not a number that JSON has"),
        (numpy.float32("nan"), "result: nan is not a number that JSON has"),
        ([numpy.datetime64("NaT", "s")], "result[0]: NaT is not a time that JSON has"),
        ({"a": numpy.array(["NaT"], dtype="m8[s]")}, "result.a: NaT is not a time that JSON has"),
        ([numpy.timedelta64(1, "Y")], "result[0]: a timedelta64 of the unit Y is no length of time"),
        (numpy.ones(1, "i8").view("m8"), "result: a timedelta64 of the unit generic is no length of time"),
        ({"t": numpy.datetime64("10000-01-01")}, "result.t: a time beyond those that Python has"),
        ([numpy.array(["20000-01-01"], dtype="M8[s]")], "result[0]: a time beyond those that Python has"),
        (numpy.timedelta64(1 << 60, "D"), "result: a time beyond those that Python has"),
        (io.BytesIO(b"x"), "result: _io.BytesIO cannot be encoded as JSON; return what its read() makes"),
        (Point, "result: type cannot be encoded as JSON; it is the class Point itself"),
        ({float("nan"): 1}, "result: the key nan is not a number that JSON has"),
        ({"d": Decimal("NaN")}, "result.d: NaN is not a number that JSON has"),
        (object(), "result: object cannot be encoded as JSON"),
        ({"items": [1, Point(1, object())]}, "result.items[1].y: object cannot be encoded as JSON"),
        ([Mixed(), lambda: None], "result[1]: function cannot be encoded as JSON"),
        ({"e": [ValueError("x")]}, "result.e[0]: ValueError cannot be encoded as JSON"),
        ((n for n in range(3)), "result: generator cannot be encoded as JSON; return a list of it"),
        (
            {"at": [datetime(2026, 1, 31, tzinfo=NoZone())]},
            "result.at[0]: datetime.datetime cannot be encoded as JSON (LookupError: no such zone)",
        ),
        ([Rows()], "test_json_encoding.Rows cannot be encoded as JSON; return a list of it"),
        (
            {"f": Frame()},
            "test_json_encoding.Frame cannot be encoded as JSON; return what its to_dict() makes",
        ),
        ({"a": {(1, 2): 3}}, "result.a: a key of type tuple; JSON has texts as keys"),
        ({b"k": 1}, "result: a key of type bytes; JSON has texts as keys"),
        (["\ud800"], "result[0]: a text that UTF-8 cannot hold (surrogates not allowed)"),
        (_circle(), "nested too deeply, or in a circle"),
        (Path, "result: type cannot be encoded as JSON"),
        ({"l": numpy.longdouble(1)}, "numpy.longdouble cannot be encoded as JSON; return float() of it"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_has_no_form_in_json_ends_the_task_and_is_named_with_its_place(value: object, text: str) -> None:
    outcome = outcome_of_result(value)
    assert isinstance(outcome, Terminated)
    assert outcome.text.startswith("invalid result: result")
    assert text in outcome.text


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
        st.characters(exclude_categories=["Cs"])
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@given(_JSON, st.booleans())
def test_what_json_has_is_encoded_exactly_on_either_way(value: Any, slowly: bool) -> None:
    given = [value, 1 << 64] if slowly else [value]
    assert json.loads(encode(given)) == given


@given(_JSON, st.sampled_from([math.nan, math.inf, -math.inf]), st.sampled_from([list, Point, numpy.array]))
def test_no_nan_becomes_null(value: Any, nan: float, hide: Callable[..., Any]) -> None:
    hidden = Point(value, nan) if hide is Point else hide([nan])
    with pytest.raises(CannotEncode, match="is not a number that JSON has"):
        encode({"a": value, "b": [hidden]})
