"""What a handler's parameters get: told by its signature, read once."""

from __future__ import annotations

import asyncio
import base64
import enum
import functools
import json
import logging
import re
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, PlainValidator, RootModel

from ajhost.api import InvalidPayload, Task, TerminateTask
from ajhost.protocol.task_record import encode_task, read_task
from ajhost.roles.handlers import NoHandler, callable_of
from ajhost.roles.middleware import around, check_middleware

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTheTypeChecker


T = typing.TypeVar("T")
Number = typing.NewType("Number", int)
Name = typing.NewType("Name", str)
Short = Annotated[str, Field(max_length=5)]


def _strange(score: int) -> int:
    if score == 1:
        raise KeyError("one")
    if score == 2:
        raise TerminateTask("two")
    if score == 3:
        raise AssertionError
    if score == 4:
        raise ValueError("secret " * 1000)
    return score


class Address(BaseModel):
    street: str
    zip: int


class Mail(BaseModel):
    to: str
    copies: list[Address] = []
    priority: int = Field(default=1, ge=1, le=9)


@dataclass
class Item:
    sku: str
    amount: int


class Row(typing.TypedDict):
    id: int
    note: typing.NotRequired[str]


class Part(typing.TypedDict, total=False):
    note: str


class Cat(BaseModel):
    kind: typing.Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: typing.Literal["dog"]
    name: str


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Box(BaseModel, typing.Generic[T]):
    item: T


class Prices(RootModel[dict[str, Decimal]]): ...


class Colour(enum.Enum):
    RED = "red"


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to_whom: str = Field(alias="to")
    score: Annotated[int, AfterValidator(_strange)] = 0


class Weird: ...


def task_of(payload: bytes) -> Task:
    body = encode_task(id="T", type="a", queue="Q", payload=payload, created_ns=0, tried_ns=0)
    return Task(read_task(body), 1e12)


def called(function: Any, payload: bytes | str) -> Any:
    call, is_async, _ = callable_of("m:f", function)
    result = call(task_of(payload if isinstance(payload, bytes) else payload.encode()))
    return asyncio.run(result) if is_async else result


def asked_for(kind: Any) -> Callable[..., Any]:
    """A handler whose payload is of this type, and which returns it."""

    def handler(what: Any, task: Task) -> object:
        return what

    handler.__annotations__["what"] = kind
    return handler


def who(value: object) -> object:
    return "the task" if isinstance(value, Task) else value


def bare(task):  # type: ignore[no-untyped-def]
    return [who(task)]


def marked(anything: Task) -> object:
    return [who(anything)]


def with_state(task: Task[int]) -> object:
    return [who(task)]


def in_a_text(task: Task | None) -> object:
    return [who(task)]


def any_task(task: Any) -> object:
    return [who(task)]


def settings_too(task: Task, times: int = 3) -> object:
    return [who(task), times]


def optional(task: Any = None) -> object:
    return [who(task)]


def variadic(*args: Any) -> object:
    return [who(a) for a in args]


def mail_first(mail: Mail, task: Task) -> object:
    return [mail, who(task)]


def task_first(task: Task, mail: Mail) -> object:
    return [who(task), mail]


def bare_task(task, mail: Mail):  # type: ignore[no-untyped-def]
    return [who(task), mail]


def mail_alone(mail: Mail) -> object:
    return [mail]


def by_name(*, task: Task, mail: Mail) -> object:
    return [who(task), mail]


def one_by_name(mail: Mail, *, task: Task) -> object:
    return [mail, who(task)]


def anything_json(what: Any) -> object:
    return [what]


def bare_payload(what, task: Task):  # type: ignore[no-untyped-def]
    return [what, who(task)]


async def on_the_loop(mail: Mail, task: Task) -> object:
    return [mail, who(task)]


class Object:
    def __call__(self, mail: Mail, task: Task) -> object:
        return [mail, who(task)]

    def method(self, task: Task, mail: Mail) -> object:
        return [who(task), mail]


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def narrow(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(task: Any) -> Any:
        return function(task)

    return wrapper


MAIL = Mail(to="ada")


def name_of(value: object) -> str:
    """Without an address, which differs from process to process of one run."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize(
    ("function", "given"),
    [
        *((f, ["the task"]) for f in (bare, marked, with_state, in_a_text, any_task, optional, variadic)),
        (settings_too, ["the task", 3]),
        *((f, [MAIL, "the task"]) for f in (mail_first, one_by_name, on_the_loop, Object())),
        *((f, ["the task", MAIL]) for f in (task_first, bare_task, by_name, Object().method)),
        (mail_alone, [MAIL]),
        (functools.partial(task_first), ["the task", MAIL]),
        (decorated(mail_first), [MAIL, "the task"]),
        (decorated(on_the_loop), [MAIL, "the task"]),
        (anything_json, [{"to": "ada"}]),
        (bare_payload, [{"to": "ada"}, "the task"]),
    ],
    ids=name_of,
)
def test_parameters_get_what_the_signature_says(function: Any, given: object) -> None:
    assert called(function, '{"to":"ada"}') == given


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        (bytes, "\N{SNOWMAN}", "\N{SNOWMAN}".encode()),
        (str, '"\N{SNOWMAN}"', '"\N{SNOWMAN}"'),
        (dict, '{"a": 1}', {"a": 1}),
        (list[int], '[1, "2"]', [1, 2]),
        (Item, '{"sku":"x","amount":2}', Item("x", 2)),
        (list[Item], '[{"sku":"x","amount":2}]', [Item("x", 2)]),
        (Row, '{"id": 1}', {"id": 1}),
        (list[Row] | int, '[{"id": 1, "note": "n"}]', [{"id": 1, "note": "n"}]),
        (Mail | Item, '{"sku":"x","amount":2}', Item("x", 2)),
        (int, "123456789012345678901234567890", 123456789012345678901234567890),
        (Annotated[int, Field(gt=3)], "4", 4),
        (Mail | None, "null", None),
        (str | int, '"text"', "text"),
        (Part, "{}", {}),
        (Annotated[Row, "of a table"], '{"id": 1}', {"id": 1}),
        (Number, "5", 5),
        (list[Pet], '[{"kind":"dog","name":"Rex"}]', [Dog(kind="dog", name="Rex")]),
        (Box[list[int]], '{"item":[1]}', Box[list[int]](item=[1])),
        (
            Prices,
            '{"a": 12345678901234567890.123456789}',
            Prices({"a": Decimal("12345678901234567890.123456789")}),
        ),
        (
            list[Decimal | str],
            '[0.10000000000000000001, "x", 2.5]',
            [Decimal("0.10000000000000000001"), "x", Decimal("2.5")],
        ),
        (Colour, '"red"', Colour.RED),
        (date, '"2026-01-31"', date(2026, 1, 31)),
        (timedelta, '"PT90S"', timedelta(seconds=90)),
        (UUID, '"00000000-0000-0000-0000-000000000001"', UUID(int=1)),
        (Named, '{"to":"ada"}', Named(to="ada")),
        (Mail | None, "", None),
        (Any, "", None),
        (bytes | None, "\N{SNOWMAN}", "\N{SNOWMAN}".encode()),
        (bytes | None, "", None),
        (str | None, '"text"', '"text"'),
        (Optional[str], "null", "null"),  # noqa: UP045
        (str | None, "", None),
        (Name, "text", "text"),
        (Short, "text", "text"),
        (Short, "", ""),
        (Short | None, "", None),
        (Annotated[bytes, "doc"] | None, "{", b"{"),
    ],
    ids=str,
)
def test_a_payload_is_made_into_the_type_of_its_parameter(kind: Any, payload: str, value: object) -> None:
    assert called(asked_for(kind), payload) == value


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("{}", "mail.to: field required"),
        ('{"copies":[{}], "priority": 0}', "mail.to: field required (and 3 more)"),
        (
            '{"to":"a","copies":[{"street":"s","zip":"x"}]}',
            "mail.copies[0].zip: input should be a valid integer",
        ),
        ("", "mail: there is none, Mail is wanted"),
        ("{", "mail: not JSON: "),
        ('{"to":"a","priority":NaN}', "mail: not JSON: NaN is no number of JSON's"),
        ('{"to":"a","priority":1e999}', "mail: not JSON: 1e999 is beyond the range of a double"),
        ('"hello"', "mail: input should be an object"),
        (json.dumps('{"to": 1}'), "mail.to: input should be a valid string"),
        (json.dumps(json.dumps('{"to": 1}')), "mail.to: input should be a valid string"),
    ],
)
def test_a_payload_that_does_not_fit_ends_the_task_and_says_where(payload: str, text: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        called(mail_alone, payload)
    assert str(raised.value).startswith(f"invalid payload: {text}")


@pytest.mark.parametrize(
    ("kind", "payload", "text"),
    [
        (Pet, '{"kind":"dog"}', "what.name: field required"),
        (
            list[Cat | int],
            '[1, {"kind":"cat","lives":"x"}]',
            "what[1].lives: input should be a valid integer, unable",
        ),
        (Cat | Dog, "{}", "what.kind: field required (and 3 more)"),
        (dict[int, str], '{"x":"a"}', "what.x[key]: input should be a valid integer"),
        (Json[int], "1", "what: JSON input should be string"),
        (Box[int], '{"item":"x"}', "what.item: input should be a valid integer"),
        (Prices, '{"a":"x"}', "what.a: input should be a valid decimal"),
        (Named, '{"to_whom":"ada"}', "what.to: field required (and 1 more)"),
        (Named, '{"to":"a","score":3}', "what.score: assertion failed"),
        (Optional[Mail], '{"to":1}', "what.to: input should be a valid string"),  # noqa: UP045
        (list[Mail], "", "what: there is none, list[Mail] is wanted"),
        (Annotated[Mail, "doc"] | int, "", "what: there is none, Mail | int is wanted"),
        (Short, "too long", "what: string should have at most 5 characters"),
        (Short | None, "too long", "what: string should have at most 5 characters"),
    ],
    ids=str,
)
def test_the_place_of_an_error_is_that_in_the_payload(kind: Any, payload: str, text: str) -> None:
    with pytest.raises(InvalidPayload) as raised:
        called(asked_for(kind), payload)
    assert str(raised.value).startswith(f"invalid payload: {text}")


@pytest.mark.parametrize("payload", [{"to": "a", "k" * 5000: 1}, {"to": "a", "score": 4}, {"to": {"k" * 9000: 1}}])
def test_no_more_than_some_characters_of_a_payload_are_in_an_error(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidPayload) as raised:
        called(asked_for(Named), json.dumps(payload))
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(("score", "error"), [(1, KeyError), (2, TerminateTask)])
def test_what_a_validator_raises_by_mistake_is_an_error_of_the_handlers(score: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="one|two"):
        called(asked_for(Named), json.dumps({"to": "a", "score": score}))


@pytest.mark.parametrize("kind", [bytes | None, Annotated[bytes, Field(min_length=1)]], ids=str)
def test_bytes_are_as_they_are_with_a_constraint_and_where_they_may_be_absent(kind: Any) -> None:
    assert called(asked_for(kind), b"\x00\xff{") == b"\x00\xff{"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` is of Python 3.12")
@pytest.mark.parametrize(
    ("annotation", "payload", "value"),
    [("Name", "text", "text"), ("Name | None", "", None), ("Raw", b"\xff", b"\xff"), ("Ids", "[1]", [1])],
)
def test_a_name_for_a_type_is_that_type(annotation: str, payload: bytes | str, value: object) -> None:
    names: dict[str, Any] = {}
    aliases = "type Name = str\ntype Raw = bytes | None\ntype Ids = list[int]\n"
    exec(f"{aliases}def handler(what: {annotation}): return what", names)
    assert called(names["handler"], payload) == value


def test_what_pydantic_does_not_know_is_made_by_a_function_of_the_handlers() -> None:
    kind = Annotated[Weird, PlainValidator(lambda value: ["made of", value])]
    assert called(asked_for(kind), '{"a": 1}') == ["made of", {"a": 1}]


def test_text_that_is_not_utf_8_is_told() -> None:
    def handler(text: str) -> None: ...

    with pytest.raises(InvalidPayload, match="^invalid payload: text: not UTF-8 at byte 1$"):
        called(handler, b"a\xff")


@pytest.mark.parametrize(
    "wrapped",
    [
        json.dumps('{"to":"ada"}'),
        json.dumps(base64.b64encode(b'{"to":"ada"}').decode()),
        json.dumps(base64.b64encode(json.dumps('{"to":"ada"}').encode()).decode()),
        json.dumps(json.dumps('{"to":"ada"}')),
    ],
)
def test_json_in_a_json_text_is_taken_for_what_it_holds_and_told_once(
    wrapped: str, caplog: pytest.LogCaptureFixture
) -> None:
    call, _, _ = callable_of("shop:send", mail_alone)
    for _ in range(2):
        assert call(task_of(wrapped.encode())) == [MAIL]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "shop:send: a payload came as" in record.getMessage()


@pytest.mark.parametrize("kind", [str, str | int, Any])
def test_a_text_stays_one_where_the_type_takes_texts(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(what: Any) -> object:
        return what

    handler.__annotations__["what"] = kind
    payload = json.dumps('{"to":"ada"}')
    assert called(handler, payload) == (payload if kind is str else '{"to":"ada"}')
    assert caplog.records == []


def test_a_signature_is_read_once_when_the_handler_is_bound() -> None:
    def handler(what: Any, task: Task) -> object:
        return [what, who(task)]

    handler.__annotations__["what"] = Mail
    call, _, _ = callable_of("m:f", handler)
    handler.__annotations__["what"] = bytes
    assert call(task_of(b'{"to":"ada"}')) == [MAIL, "the task"]


def test_without_middleware_a_handler_is_called_as_it_is() -> None:
    assert around((), mail_alone) is mail_alone


class Recorder:
    async def __call__(self, task: Task, call: Any) -> object: ...
    async def record(self, task: Task, call: Any) -> object: ...


async def labelled(task: Task, call: Any, label: str = "") -> object: ...


@pytest.mark.parametrize(
    "middleware",
    [labelled, functools.partial(labelled, label="shop"), Recorder(), Recorder().record],
    ids=["a function", "a partial", "an object", "a method"],
)
def test_whatever_is_awaited_with_a_task_and_a_call_is_middleware(middleware: Any) -> None:
    assert check_middleware("m:f", middleware) is middleware


def two_bare(a, b): ...  # type: ignore[no-untyped-def]
def two_payloads(a: Mail, b: Item) -> None: ...
def two_tasks(a: Task, b: Task) -> None: ...
def three(mail: Mail, task: Task, *, config: dict[str, str]) -> None: ...
def weird(what: Weird) -> None: ...
def hidden(what: OnlyForTheTypeChecker) -> None: ...
def only_names(**names: Any) -> None: ...


def test_a_function_without_parameters_is_called_with_nothing() -> None:
    async def nightly() -> str:
        return "done"

    assert called(nightly, b'{"any": 1}') == called(lambda: "done", b"") == "done"


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (only_names, ["cannot be called with one argument, the task", "f(task: Task), f()"]),
        (two_bare, ["m:f(a, b) cannot be called", "f(task: Task) or f(a: Payload, task: Task)"]),
        (
            two_payloads,
            ["it needs a, b", "f(a: Mail, task: Task), where a dataclass or a TypedDict may have a, b"],
        ),
        (two_tasks, ["a and b are both a Task"]),
        (three, ["it needs mail, config", "f(mail: Mail, task: Task)"]),
        (
            weird,
            [
                "what cannot be validated as Weird",
                "What would do: bytes, str, dict",
                "Annotated[Weird, PlainValidator(f)]",
            ],
        ),
        (hidden, ["'OnlyForTheTypeChecker' of what cannot be resolved", "at run time"]),
        (Object.method, ["m:f is a method", "of an object of its class"]),
        (narrow(mail_first), ["a decorator's wrapper(task: Task)", "give it (*args, **kwargs)"]),
    ],
)
def test_a_signature_that_cannot_be_bound_is_told_with_one_that_can(function: Any, parts: list[str]) -> None:
    with pytest.raises(NoHandler) as raised:
        callable_of("m:f", function)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize(("payload", "given"), [("", None), ('{"to":"ada"}', MAIL)])
def test_a_payload_that_may_be_absent_has_a_default(payload: str, given: object) -> None:
    def handler(mail: Mail | None = None) -> object:
        return mail

    assert called(handler, payload) == given


def test_a_model_that_is_called_task_is_a_payload() -> None:
    """By the name in the annotation's text it could be taken for ours."""
    code = """
from __future__ import annotations
from pydantic import BaseModel
class Task(BaseModel):
    to: str
def handler(what: Task): return what.to
"""
    names: dict[str, Any] = {"__name__": "of_the_test"}
    sys.modules["of_the_test"] = cast(Any, types.SimpleNamespace(**names))
    try:
        exec(code, names)
        assert called(names["handler"], '{"to":"ada"}') == "ada"
    finally:
        del sys.modules["of_the_test"]


def test_a_task_that_only_the_type_checker_imports_is_the_task() -> None:
    names: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef handler(what: Task[State]): return what", names)
    assert who(called(names["handler"], "")) == "the task"


def test_a_handler_of_the_task_alone_is_called_as_it_stands() -> None:
    assert callable_of("m:f", marked)[0] is marked
