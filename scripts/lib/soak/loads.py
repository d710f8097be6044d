"""Loads of several kinds, each for as long as it is told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from scripts.lib.soak.router import Router

Make = Callable[[random.Random], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Profile:
    """`run(router, random, until)` sends until that moment (`time.monotonic`)."""

    name: str
    run: Callable[[Router, random.Random, float], Awaitable[None]]


def _route(rng: random.Random) -> tuple[str, str]:
    """A route and the type of its task: handlers on the loop, in threads, with a limit, a prefix, the catch-all."""
    return rng.choices(
        (("work", "work"), ("thread", "thread"), ("few", "few"), ("pre:", "pre:fix"), ("", "anything")),
        (60, 15, 5, 10, 10),
    )[0]


def _payload(rng: random.Random, ms: float) -> dict[str, Any]:
    payload: dict[str, Any] = {"ms": round(ms, 2)}
    match rng.random():
        case x if x < 0.002:
            payload["kind"] = "error"
        case x if x < 0.004:
            payload["kind"] = "terminate"
        case x if x < 0.02:
            payload["pad"] = "x" * 20_000
        case x if x < 0.021:
            payload["pad"] = "x" * 300_000
    return payload


async def _send(router: Router, rng: random.Random, ms: float) -> None:
    route, type_ = _route(rng)
    await router.send(route, _payload(rng, ms), rng.uniform(4, 12), type_)


async def _poisson(router: Router, rng: random.Random, until: float, rate: float, low: float, high: float) -> None:
    due = time.monotonic()
    while due < until:
        await router.connected.wait()
        due += rng.expovariate(rate)
        ahead = due - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        elif ahead < -1:
            due = time.monotonic()  # this machine does not keep up; or the server was away
        await _send(router, rng, rng.uniform(low, high))


async def steady(router: Router, rng: random.Random, until: float) -> None:
    """300 a second, 5 to 200 ms each."""
    await _poisson(router, rng, until, 300, 5, 200)


async def short(router: Router, rng: random.Random, until: float) -> None:
    """1,500 a second, hardly any work."""
    await _poisson(router, rng, until, 1500, 0, 5)


async def backlog(router: Router, rng: random.Random, until: float) -> None:
    """More than the slots can do: 900 a second, 50 to 150 ms each."""
    await _poisson(router, rng, until, 900, 50, 150)


async def bursts(router: Router, rng: random.Random, until: float) -> None:
    """Up to 2,000 at once, every second or two."""
    while time.monotonic() < until:
        await router.connected.wait()
        for number in range(rng.randrange(100, 2000)):
            await _send(router, rng, rng.uniform(0, 30))
            if number % 64 == 63:
                await asyncio.sleep(0)
        await asyncio.sleep(rng.uniform(0.5, 2.5))


async def saturated(router: Router, rng: random.Random, until: float) -> None:
    """256 outstanding at any time, no work at all."""

    async def one() -> None:
        while time.monotonic() < until:
            await router.connected.wait()
            await router.answer(await router.send("work", {"ms": 0}, rng.uniform(4, 12)))

    await asyncio.gather(*(one() for _ in range(256)))


PROFILES = (
    Profile("steady 300/s", steady),
    Profile("short 1500/s", short),
    Profile("bursts", bursts),
    Profile("saturated 256", saturated),
    Profile("backlog 900/s", backlog),
)
