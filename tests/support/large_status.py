"""Statuses of hosts as large as one gets, for what shows them."""

from __future__ import annotations

import math
import time

from ajhost.core.status_report import (
    DISCONNECTED,
    SERVING,
    ConnectionReport,
    RouteStatus,
    StatusReport,
    SupervisorStatus,
    TaskStatus,
    WorkerStatus,
)
from ajhost.protocol.timestamps import SECOND, render

_AREAS = (
    "billing",
    "email",
    "images",
    "inventory",
    "ledger",
    "orders",
    "reports",
    "search",
    "sync",
    "webhooks",
)


_FEW = (
    "email:new",
    "images:resize",
    "invoices:render",
    "orders:sync",
    "reports:nightly",
    "search:index",
    "sms:send",
    "webhooks:post",
)


def large_report(workers: int = 64, routes: int = 200, second: int = 0) -> StatusReport:
    """A busy host: some of many workers hang or are disconnected, three tasks run in every second one.

    Counts grow from `second` to `second`, by rates that rise and fall.
    """
    many = [f"{_AREAS[n % len(_AREAS)]}:job-{n // len(_AREAS):02}" for n in range(routes)]
    names = many if routes > len(_FEW) else list(_FEW[:routes])
    return StatusReport(
        SupervisorStatus(
            4711,
            12,
            True,
            "0.1.0",
            "/etc/ajhost/ajhost.toml",
            456_789.0 + second,
            _connection(9000.0 + second),
        ),
        tuple(_worker(slot, names) for slot in range(workers)),
        workers,
        tuple(_route(n, name, second) for n, name in enumerate(names)),
        60.0,
    )


def attempts(at: float, names: list[str]) -> list[dict[str, object]]:
    """What the page shows of attempts that did not complete, newest first."""
    texts = (
        ("failed", "handler error", "ConnectionError: the mail server does not answer"),
        ("failed", "deadline exceeded", "the task ran for 30 s, its deadline passed 1.2 ms ago"),
        ("terminated", "terminated", "no such address"),
        ("refused", "overloaded", "64 requests wait already"),
        ("failed", "worker died", "killed by SIGKILL"),
    )
    return [
        {
            "at": at - 3.7 * n, "id": f"2a6kBWzRcZ9ZRyP1mC3rWq{n:05}", "type": names[n * 7 % len(names)],
            "outcome": texts[n % 5][0], "reason": texts[n % 5][1], "text": texts[n % 5][2], "tries": n % 4 + 1,
        }
        for n in range(200)
    ]  # fmt: skip


def _connection(since_s: float) -> ConnectionReport:
    return ConnectionReport("connected", "nats-1.example.net:4222", since_s, "", 3)


def _worker(slot: int, names: list[str]) -> WorkerStatus:
    tasks = () if slot % 2 else tuple(_task(slot * 3 + n, names) for n in range(3))
    connection, state = _connection(8000.0 + slot), SERVING
    if slot % 23 == 7:
        connection, state = (
            ConnectionReport("waiting", "", 25.0, "nats-1.example.net:4222: connection refused", 9),
            DISCONNECTED,
        )
    elif slot % 29 == 3:
        state = "hung"
    counts = {"received": 900 + slot, "completed": 800 + slot}
    return WorkerStatus(slot, 5000 + slot, 12, state, tasks, counts, connection, (40 + slot) << 20, slot % 7 / 6)


def _task(number: int, names: list[str]) -> TaskStatus:
    name, running_s = names[number % len(names)], 0.4 + number * 1.7
    left_s = -2.0 if number % 31 == 9 else 60.0 - number / 4
    deadline = render(round((time.time() + left_s) * SECOND))
    state = "overdue" if left_s < 0 else "running"
    return TaskStatus(f"2a6kBWzRcZ9ZRyP1mC3rWp{number:05}", name, name, state, running_s, deadline)


def _route(number: int, name: str, second: int) -> RouteStatus:
    busy = 400 / (number + 1)
    # the integral of a rate that swings around `busy`
    done = int(busy * (500 + second + 4 * math.sin(second / 9 + number)))
    failed = {"handler error": number + int(second * busy / 50)} if number % 9 == 4 else {}
    refused = {"overloaded": number} if number % 40 == 11 else {}
    return RouteStatus(
        name, done, done, number % 3, failed, refused, number % 5, 0 if number % 17 else number, busy,
        busy / 50 if failed else 0.0, 0.004 + number / 5000, 0.3 + number / 90, 0.001 + number / 900,
    )  # fmt: skip
