"""Typed payloads and results in a real host, forked from a template."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

SHOP = """
from __future__ import annotations
from dataclasses import dataclass
from decimal import Decimal
from pydantic import BaseModel
from ajhost import Task

class Line(BaseModel):
    sku: str
    amount: int

class Order(BaseModel):
    number: int
    lines: list[Line]

@dataclass
class Receipt:
    number: int
    total: Decimal
    skus: set[str]

async def order(order: Order, task: Task) -> Receipt:
    return Receipt(order.number, Decimal("12.50"), {line.sku for line in order.lines})

def plain(order: Order) -> Order:
    return order

def either(what: Order | str) -> str:
    return type(what).__name__

def raw(image: bytes, task: Task) -> bytes:
    return image
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Router]:
    """A router beside one host that serves every test of this module."""
    folder: Path = tmp_path_factory.mktemp("payloads")
    routes = {name: f"shop:{name}" for name in ("order", "plain", "either", "raw")}
    async with (
        NatsServer(folder) as server,
        Host(folder, nats=server.url, handlers=routes, modules={"shop": SHOP}),
        Router(server.url) as router,
    ):
        yield router


pytestmark = pytest.mark.asyncio(loop_scope="module")
ORDER = {"number": 123456789012345678901234567890, "lines": [{"sku": "a", "amount": 1}]}


async def test_a_payload_becomes_a_model_and_a_dataclass_becomes_the_result(router: Router) -> None:
    reply = await router.request("order", ORDER)
    assert reply.json() == {"number": ORDER["number"], "total": "12.50", "skus": ["a"]}
    assert (await router.request("plain", ORDER)).json() == ORDER


@pytest.mark.parametrize("route", ["order", "plain"])
async def test_a_payload_that_does_not_fit_ends_the_task(router: Router, route: str) -> None:
    reply = await router.request(route, {"number": "x", "lines": [{"sku": 1}]})
    assert reply.verdict is Verdict.TERMINATE
    assert reply.text.startswith("invalid payload: order.number: input should be a valid integer")
    assert reply.text.endswith("(and 2 more)")


@pytest.mark.parametrize("route", ["order", "plain"])
async def test_what_ajc_and_the_scheduler_send_is_taken_for_what_it_holds(router: Router, route: str) -> None:
    text = json.dumps(ORDER)
    for payload in (json.dumps(text), json.dumps(base64.b64encode(text.encode()).decode())):
        assert (await router.request(route, payload.encode())).json()["number"] == ORDER["number"]


async def test_a_text_stays_one_where_texts_are_taken(router: Router) -> None:
    assert (await router.request("either", ORDER)).body == b"Order"
    assert (await router.request("either", json.dumps(json.dumps(ORDER)).encode())).body == b"str"


async def test_bytes_are_bytes(router: Router) -> None:
    assert (await router.request("raw", bytes(range(256)))).body == bytes(range(256))
