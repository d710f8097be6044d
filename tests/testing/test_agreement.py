"""What `ajhost.testing.run` says of a handler is what a real host answers, whatever way it is written."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from ajhost import Task, TerminateTask
from ajhost.adapters.nats.server_process import EmbeddedNatsServer
from ajhost.testing import Outcome, run_sync
from ajhost.testing.host import TestHost
from tests.support.waiting import until

T = TypeVar("T")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Page(BaseModel, Generic[T]):
    items: list[T]


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user: int = Field(alias="userId")

    @field_validator("user")
    @classmethod
    def _known(cls, user: int) -> int:
        if user < 0:
            raise ValueError("is unknown")
        return {1: 1}[user]


class Numbers(RootModel[list[int]]): ...


@dataclass(slots=True)
class Row:
    at: datetime
    price: Decimal
    tags: frozenset[str]


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    async def open(self, cat: Cat, task: Task) -> list[object]:
        return [self.name, cat.lives, task.type]

    def __call__(self, numbers: Numbers) -> int:
        return sum(numbers.root)

    @staticmethod
    async def pet(animal: Annotated[Cat | Dog, Field(discriminator="kind")]) -> object:
        return animal


def logged(function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> object:
        return ["logged", await function(*args, **kwargs)]

    return wrapper


@logged
async def wrapped(cat: Cat, *, task: Task | None = None) -> object:
    return [cat.lives, task is not None]


async def times(factor: int, numbers: Numbers) -> list[int]:
    return [factor * number for number in numbers.root]


async def page(page: Page[Cat]) -> object:
    return page


async def named(user: Named) -> Named:
    return user


def row() -> Row:
    return Row(datetime(2026, 1, 31, tzinfo=UTC), Decimal("1.50"), frozenset({"a"}))


def default(amount: Annotated[int, Field(gt=0)] = 3) -> int:
    return amount


def title(text: Annotated[str, Field(max_length=5)] | None) -> list[object]:
    return [text]


async def in_a_group(task: Task) -> None:
    async def ends() -> None:
        raise TerminateTask("no such customer")

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(ends())


async def two_faults() -> None:
    raise ExceptionGroup("two", [ValueError("one"), KeyError("other")])


async def own_cancellation() -> None:
    raise asyncio.CancelledError


async def own_timeout() -> None:
    async with asyncio.timeout(0):
        await asyncio.sleep(60)


def own_loop(numbers: Numbers) -> int:
    return asyncio.run(asyncio.sleep(0, sum(numbers.root)))


def leaves() -> None:
    sys.exit("no configuration")


def debugged() -> int:
    breakpoint()
    return 1


def rows() -> Iterator[int]:
    return iter([1])


def not_a_number() -> dict[str, float]:
    return {"mean": float("nan")}


def too_large() -> str:
    return "x" * 1_048_577


async def for_ever() -> None:
    await asyncio.sleep(60)


berlin = Shop("Berlin")
thrice = functools.partial(times, 3)

CAT = {"kind": "cat", "lives": 7}
_TIMEOUTS = {"for_ever": 0.5}
CASES: list[tuple[str, object, str]] = [
    ("berlin.open", CAT, '["Berlin",7,"berlin-open"]'),
    ("berlin", [1, 2], "3"),
    ("Shop.pet", CAT, '{"kind":"cat","lives":7}'),
    ("Shop.pet", {"kind": "cow"}, "invalid payload: animal: input tag 'cow' found using 'kind'"),
    ("wrapped", CAT, '["logged",[7,true]]'),
    ("thrice", [1, 2], "[3,6]"),
    ("page", {"items": [CAT]}, '{"items":[{"kind":"cat","lives":7}]}'),
    ("page", {"items": [CAT, {}]}, "invalid payload: page.items[1].kind: field required"),
    ("named", {"userId": 1}, '{"user":1}'),
    ("named", {"userId": -1}, "invalid payload: user.userId: value error, is unknown"),
    ("named", {"userId": 2}, "handler error: KeyError: 2"),
    ("row", None, '{"at":"2026-01-31T00:00:00+00:00","price":"1.50","tags":["a"]}'),
    ("default", None, "3"),
    ("default", 0, "invalid payload: amount: input should be greater than 0"),
    ("title", "plain", '["plain"]'),
    ("title", None, "[null]"),
    ("title", '"json"', "invalid payload: text: string should have at most 5 characters"),
    ("in_a_group", None, "no such customer"),
    (
        "two_faults",
        None,
        "handler error: ExceptionGroup: two (2 sub-exceptions): ValueError: one; KeyError: 'other'",
    ),
    ("own_cancellation", None, "handler error: CancelledError"),
    ("own_timeout", None, "handler error: TimeoutError"),
    ("own_loop", [1, 2], "3"),
    ("leaves", None, "handler error: SystemExit: no configuration"),
    ("rows", None, "invalid result: result: list_iterator cannot be encoded as JSON; return a list of it"),
    ("not_a_number", None, "invalid result: result.mean: nan is not a number that JSON has"),
    ("too_large", None, "result too large: 1048577 bytes"),
    ("for_ever", None, "deadline exceeded: the handler of route 'for_ever' was still running after 0.5 s"),
]


def route(name: str) -> str:
    return name.replace(".", "-")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestHost]:
    routes = {
        route(name): {"target": f"{__name__}:{name}", "timeout": _TIMEOUTS.get(name, 60.0)}
        for name in [*(name for name, _, _ in CASES), "debugged"]
    }
    server = EmbeddedNatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    running = TestHost(server.url, routes)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        server.stop()


@pytest.mark.parametrize(("name", "payload", "said"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_handler_says_the_same_in_a_test_and_in_a_host(host: TestHost, name: str, payload: object, said: str) -> None:
    here = run_sync(f"{__name__}:{name}", payload, type=route(name), timeout=_TIMEOUTS.get(name))
    there = host.call(route(name), payload)

    def stored(outcome: Outcome) -> object:
        return outcome.result, outcome.error, outcome.terminated

    assert stored(here) == stored(there)
    assert (here.text if here.error is None else here.error).startswith(said)


def test_a_breakpoint_in_a_worker_names_the_command_that_has_a_terminal(host: TestHost) -> None:
    assert host.call("debugged").error == (
        "handler error: BdbQuit: a debugger has no terminal in a worker; `ajhost dev --debug` gives it one"
    )
    # the answer leaves before the record is written
    asyncio.run(until(lambda: "BdbQuit" in host.log.partition("Traceback")[2]))
    traceback = host.log.partition("BdbQuit")[2].partition("Traceback")[2]
    assert "in debugged" in traceback.splitlines()[1], "it begins with the handler, not with who calls it"
