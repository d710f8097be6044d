"""What a host says of its connections, everywhere it says it, compared with what is so.

What is so is asked of the server: who is subscribed there. What the host says is asked of `ajhost status`, its JSON,
`/readyz` and `/metrics`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support.host import Host
from tests.support.http_page import fetch
from tests.support.nats import NatsServer, free_port
from tests.support.router import subject_of

CONNECTED = re.compile(r'^ajhost_nats_connected\{slot="(\d+)"\} ([01])(?:\.0)?$', re.MULTILINE)
RECONNECTS = re.compile(r"^ajhost_nats_reconnects_total\{.*\} ([0-9.e+]+)$", re.MULTILINE)
CONNECTED_STATE = "connected"
"""The state of a connection that serves, in `ajhost status --json`."""
_POLL = 0.1
LOOKS = 15
"""A host that is given two seconds is looked at so often on a machine that is not slow."""


def with_pages(*, count: int = 2, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections of a host that has pages, on a port of its own."""
    workers: dict[str, Any] = {"count": count} | more.pop("workers", {})
    return {"http": {"listen": f"127.0.0.1:{free_port()}"}, "workers": workers, **more}


def listens(sections: dict[str, dict[str, Any]]) -> str:
    """Where a host with these sections has its pages."""
    listen: str = sections["http"]["listen"]
    return listen


@dataclass(frozen=True, slots=True)
class Said:
    """What the host said at one moment: how many slots are connected, by each source; None where it says nothing."""

    status: int | None
    """Exit status of `ajhost status`; not asked for when None."""
    connections: dict[str, dict[str, Any] | None]
    """Who (slot, or `supervisor`) -> its connection in the JSON."""
    ready: int
    """HTTP status of /readyz."""
    connected: dict[str, int]
    """Slot -> 0 or 1 in the metrics."""
    reason: str
    """What /readyz says."""

    def subscribed(self) -> int:
        """How many workers are subscribed, by the JSON."""
        return sum(
            1
            for who, connection in self.connections.items()
            if who != "supervisor" and connection is not None and connection.get("state") == CONNECTED_STATE
        )

    def contradictions(self, serving: int, count: int) -> list[str]:
        """In what it differs from `serving` of `count` slots being served by a subscribed worker."""
        whole = serving >= count
        wrong = []
        if self.status is not None and (self.status == 0) != whole:
            wrong.append(f"`ajhost status` ended with {self.status}")
        if self.subscribed() != serving:
            wrong.append(f"its JSON says {self.connections}")
        if (self.ready == 200) != whole or self.ready not in (200, 503):
            wrong.append(f"/readyz says {self.ready} {self.reason.strip()!r}")
        if self.ready == 503 and not self.reason.strip():
            wrong.append("/readyz gives no reason")
        if sum(self.connected.values()) != serving or len(self.connected) != count:
            wrong.append(f"ajhost_nats_connected is {self.connected}")
        return wrong


async def said(host: Host, listen: str, *, command: bool = False) -> Said:
    """Asks once. With `command`, `ajhost status` as well, which is a process."""
    page, ready, metrics = await asyncio.gather(
        fetch(listen, "/status"), fetch(listen, "/readyz"), fetch(listen, "/metrics")
    )
    status = (await host.command("status")).status if command else None
    told = json.loads(page.text)
    connections = {str(worker["slot"]): worker.get("connection") for worker in told["workers"]}
    connections["supervisor"] = told["supervisor"].get("connection")
    connected = {slot: int(value) for slot, value in CONNECTED.findall(metrics.text)}
    return Said(status, connections, ready.status, connected, ready.text)


async def says_the_truth(
    host: Host, listen: str, serving: int, count: int | None = None, *, within: float = 3.0
) -> Said:
    """Returns when every source says that `serving` slots of `count` are served. Raises AssertionError.

    Where a look takes long the host is as slow as who looks: there it has `LOOKS` of them, however long they take.
    """
    count = serving if count is None else count
    end, looks = time.monotonic() + within, 0
    while True:
        looks += 1
        now = await said(host, listen)
        wrong = now.contradictions(serving, count)
        if not wrong:
            last = await said(host, listen, command=True)
            if not (wrong := last.contradictions(serving, count)):
                return last
        if time.monotonic() > end and looks >= LOOKS:
            raise AssertionError(f"{serving} of {count} slots are served, and {within} s later {'; '.join(wrong)}")
        await asyncio.sleep(_POLL)


async def reconnects(listen: str) -> float:
    """How many connections were made anew, by the metrics."""
    return sum(float(value) for value in RECONNECTS.findall((await fetch(listen, "/metrics")).text))


async def workers_subscribed(server: NatsServer, route: str = "echo") -> int:
    """How many workers are subscribed, by the server's account. The supervisor, which covers, is not counted."""
    names = await server.subscribers(subject_of(route))
    return sum("supervisor" not in name for name in names)


async def subscribed_again(
    server: NatsServer, count: int, within: float, *, route: str = "echo", since: float | None = None
) -> float:
    """Returns when so many workers are subscribed at the server: the seconds that took. Raises AssertionError."""
    began = time.monotonic() if since is None else since
    found = -1
    while time.monotonic() - began < within:
        with contextlib.suppress(OSError):
            if (found := await workers_subscribed(server, route)) >= count:
                return time.monotonic() - began
        await asyncio.sleep(0.05)
    raise AssertionError(f"{found} of {count} workers are subscribed after {within} s")


async def cut_off(server: NatsServer, within: float = 3.0, *, left: int = 0) -> None:
    """Returns when at most `left` workers are subscribed at the server. Raises AssertionError."""
    began = time.monotonic()
    while (found := await workers_subscribed(server)) > left:
        if time.monotonic() - began > within:
            raise AssertionError(f"{found} workers are subscribed after {within} s")
        await asyncio.sleep(0.05)


@dataclass(slots=True)
class Lie:
    """What the host said that was not so, and for how long at a stretch."""

    text: str
    since: float
    until: float

    @property
    def seconds(self) -> float:
        """How long it said so."""
        return self.until - self.since


@dataclass(slots=True)
class Watch:
    """Compares, again and again while the block lasts, what the host says with what is so.

    `truth` tells how many workers are subscribed at this moment, or None while nobody can know.
    """

    host: Host
    listen: str
    count: int
    truth: Callable[[], Awaitable[int | None]]
    lies: list[Lie] = field(default_factory=list)
    samples: int = 0
    slowest: float = 0.0
    """Seconds that a look took at most."""
    _task: asyncio.Task[None] | None = None

    async def _look(self) -> None:
        current: Lie | None = None
        while True:
            now = time.monotonic()
            wrong: list[str] = []
            try:
                before = await self.truth()
                heard = await said(self.host, self.listen)
                after = await self.truth()
            except OSError:
                before = after = None
            if before is not None and before == after:
                self.samples += 1
                wrong = heard.contradictions(before, self.count)
                if wrong:
                    text = f"{before} of {self.count} are subscribed: {'; '.join(wrong)}"
                    if current is None:
                        current = Lie(text, now, now)
                        self.lies.append(current)
                    current.until = time.monotonic()
            if not wrong and before is not None:
                current = None
            self.slowest = max(self.slowest, time.monotonic() - now)
            await asyncio.sleep(_POLL)

    def longest(self) -> Lie:
        """The lie that lasted longest; one of no length if there was none."""
        return max(self.lies, key=lambda lie: lie.seconds, default=Lie("none", 0.0, 0.0))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        results = await asyncio.gather(self._task, return_exceptions=True)
        if error is None and isinstance(results[0], Exception):
            raise results[0]
