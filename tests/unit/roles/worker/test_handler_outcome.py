"""What a handler returned or raised, in one outcome; nothing makes it raise."""

from __future__ import annotations

import asyncio
import enum
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.api import TerminateTask
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.roles.worker.handler_outcome import describe, outcome_of_exception, outcome_of_result


@dataclass
class Point:
    x: int
    y: float


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    def encode(self, *_: object) -> NoReturn:
        raise AssertionError("a subclass's own encode")


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (b"", b""),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        ("grüße", "grüße".encode()),
        (Text("text"), b"text"),
        ("", b""),
        (None, b""),
        (False, b"false"),
        (0, b"0"),
        ([], b"[]"),
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}'),
        ({1: "one"}, b'{"1":"one"}'),
        ((1, 2), b"[1,2]"),
        (Point(1, 2.5), b'{"x":1,"y":2.5}'),
        (Colour.RED, b'"red"'),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), b'"2026-01-31T12:00:00+00:00"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_is_sent_as_it_is_as_text_or_as_json(value: object, body: bytes) -> None:
    assert outcome_of_result(value) == Completed(body)


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("even the name of the class fails")


class Nameless(metaclass=Meta):
    pass


def _released() -> memoryview:
    view = memoryview(b"gone")
    view.release()
    return view


def _circle() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (object(), "result: object cannot be encoded as JSON"),
        ({"a": [1, object()]}, "result.a[1]: object cannot be encoded as JSON"),
        (float("nan"), "result: nan is not a number that JSON has"),
        pytest.param("half \ud83d of a pair", "a str that cannot be sent: 'utf-8' codec", id="half a pair"),
        (_circle(), "nested too deeply, or in a circle"),
        (_released(), "a memoryview that cannot be sent: operation forbidden on released"),
        (Nameless(), "Nameless cannot be encoded as JSON"),
    ],
    ids=["object", "inside", "nan", "surrogate", "circle", "released", "nameless"],
)
def test_a_result_that_cannot_be_sent_ends_the_task_and_is_named(value: object, text: str) -> None:
    outcome = outcome_of_result(value)
    assert isinstance(outcome, Terminated)
    assert outcome.text.startswith("invalid result: ")
    assert text in outcome.text


class StrRaises(Exception):
    def __str__(self) -> str:
        raise SystemExit("even str() fails")


class StrIsNoStr(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Odd(str):
    def __format__(self, _: str) -> NoReturn:
        raise RuntimeError("even its format fails")

    def __bool__(self) -> NoReturn:
        raise RuntimeError("even its truth fails")


class StrIsOdd(TerminateTask):
    def __str__(self) -> str:
        return Odd("odd")


class NamelessError(Exception, metaclass=Meta):
    pass


class MembersRaise(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> NoReturn:
        raise RuntimeError("even its members fail")


class Base(BaseException):
    pass


def _too_deep() -> RecursionError:
    def again() -> NoReturn:
        again()

    try:
        again()
    except RecursionError as error:
        return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("why"), "RuntimeError: why"),
        (RuntimeError(), "RuntimeError"),
        (OSError("no postgres://ada:hunter2@db:5432/jobs"), "OSError: no postgres://***@db:5432/jobs"),
        (OSError(f"{'x' * 16_380}://ada:hunter2@db"), f"OSError: {'x' * 16_380}://*"),
        (KeyError("key"), "KeyError: 'key'"),
        (Base("base"), "Base: base"),
        (SystemExit(4), "SystemExit: 4"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit("out"), "GeneratorExit: out"),
        (asyncio.CancelledError("of its own"), "CancelledError: of its own"),
        (StopIteration("end"), "StopIteration: end"),
        (StopAsyncIteration("end"), "StopAsyncIteration: end"),
        (_too_deep(), "RecursionError: maximum recursion depth exceeded"),
        (StrRaises(), "StrRaises: its text cannot be had"),
        (StrIsNoStr(), "StrIsNoStr: its text cannot be had"),
        (NamelessError("why"), "NamelessError: why"),
        (
            ExceptionGroup("some", [ValueError("one"), TypeError("two")]),
            "ExceptionGroup: some (2 sub-exceptions): ValueError: one; TypeError: two",
        ),
        (
            BaseExceptionGroup("base", [KeyboardInterrupt(), StrRaises()]),
            "BaseExceptionGroup: base (2 sub-exceptions): KeyboardInterrupt; StrRaises: its text cannot be had",
        ),
        (
            MembersRaise("some", [ValueError("one")]),
            "MembersRaise: some (1 sub-exception): ValueError: one",
        ),
    ],
    ids=lambda value: value.partition(":")[0] if isinstance(value, str) else "",
)
def test_whatever_is_raised_fails_with_its_class_and_text(error: BaseException, text: str) -> None:
    assert outcome_of_exception(error) == Failed(f"handler error: {text}")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TerminateTask("never"), "never"),
        (
            TerminateTask("SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY is no user"),
            "*** is no user",
        ),
        (TerminateTask(), "TerminateTask"),
        (StrIsOdd(), "odd"),
        (
            ExceptionGroup("of a TaskGroup", [*(ValueError(str(n)) for n in range(5)), TerminateTask("in it")]),
            "in it",
        ),
        (BaseExceptionGroup("two", [ExceptionGroup("one", [TerminateTask("deep")])]), "deep"),
    ],
)
def test_terminate_task_ends_the_task_with_a_text(error: BaseException, text: str) -> None:
    assert outcome_of_exception(error) == Terminated(text)


def test_a_group_is_told_by_its_first_members() -> None:
    told = describe(ExceptionGroup("many", [ValueError(str(n)) for n in range(100)]))
    assert "ValueError: 2" in told
    assert "ValueError: 3" not in told


def test_groups_nested_deeper_than_the_stack_are_told_without_recursion() -> None:
    nested: Exception = ValueError("innermost")
    for level in range(sys.getrecursionlimit() * 2):
        nested = ExceptionGroup(str(level), [nested])
    told = describe(nested)
    assert told.count("ExceptionGroup") == 4
    while isinstance(nested, ExceptionGroup):  # or its destruction would recurse
        nested = nested.exceptions[0]


def test_groups_that_hold_each_other_many_times_are_told_in_a_bounded_text() -> None:
    nested: Exception = ValueError("innermost")
    for level in range(40):
        nested = ExceptionGroup(str(level), [nested] * 3)
    assert describe(nested).count("ExceptionGroup") == 1 + 3 + 9 + 27


_ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.frozensets(st.integers()),
)


@given(_ANYTHING)
def test_any_value_has_one_outcome(value: object) -> None:
    outcome: Outcome = outcome_of_result(value)
    assert isinstance(outcome, Completed) or (
        isinstance(outcome, Terminated) and outcome.text.startswith("invalid result: ")
    )
