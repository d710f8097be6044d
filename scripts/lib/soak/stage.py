"""What faults act upon, and what they leave in writing: when they were, and whom they excuse."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ajhost.core.backoff import BACKOFF
from ajhost.core.timings import ANSWER_MARGIN, LOGIN_SPREAD
from ajhost.ledger.connection_status import Reason
from scripts.lib.soak.router import Router
from scripts.lib.soak.service_manager import Service
from tests.support.host import ROOT
from tests.support.nats import NatsServer, free_port

MODULE = "from scripts.lib.soak.handlers import *  # version {version}\n"
ROUTES = ("work", "thread", "block", "gil", "deaf", "fork", "crash")
PASSWORD = "sesame"
"""The host's, at the server."""


def server_config(*, password: str = PASSWORD, may: str = ">") -> str:
    """The server's configuration: who may come, and to what the host may subscribe."""
    host = f'{{user: host, password: {password}, permissions: {{subscribe: ["{may}"], publish: [">"]}}}}'
    lame_duck = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n'
    return f"authorization {{ users = [{host}, {{user: router, password: {PASSWORD}}}] }}\n{lame_duck}"


_BACK = BACKOFF[Reason.ENDED].most + 0.5
"""Seconds after a server's start by which every process has connected again: the longest pause between two tries, and
some more.
"""
BACK_AFTER_REFUSAL = BACKOFF[Reason.AUTHORIZATION].most + LOGIN_SPREAD
"""As `_BACK`, after a server that was there and refused, or was silent: these are tried more seldom."""


_PASSED_ON = 0.1
"""Seconds that a server at full load may take for an answer: what it has not read when a fault begins is lost."""


@dataclass(slots=True)
class Window:
    """A time during which something beyond the host's promise was the case; `end` is 0 while it lasts."""

    name: str
    start: float
    end: float = 0.0
    nobody: int = 0
    """Requests that found no responders meanwhile."""
    back: float = _BACK
    """Seconds after its end in which connections are made again."""

    def touches(self, since: float, until: float) -> bool:
        """Whether that time overlaps with it, or with the time in which all come back and do what has waited."""
        return self.start <= until and (not self.end or self.end + max(self.back, _BACK) >= since)


def away_at(deadline: float, servers: Iterable[Window], daemons: Iterable[Window] = ()) -> bool:
    """Whether a fault of the server explains that nobody was connected when the host would answer at the latest.

    A process is back `Window.back` seconds after the fault's end at the latest (docs/connection.md, "Reasons"), not at
    once: until then it may be in its pause between two tries, with results that nobody else has. A daemon that was
    killed is back when its next start is ready. So windows that follow each other more closely are one long window.
    """
    spans = [(w.start, (w.end or math.inf) + w.back, True) for w in servers]
    spans += [(w.start, w.end or math.inf, False) for w in daemons]
    chains: list[tuple[float, float, bool]] = []
    for start, end, of_server in sorted(spans):
        if chains and start <= chains[-1][1]:
            begin, before, has_server = chains.pop()
            chains.append((begin, max(before, end), has_server or of_server))
        else:
            chains.append((start, end, of_server))
    moment = deadline - ANSWER_MARGIN
    return any(has_server and start - _PASSED_ON <= moment <= end for start, end, has_server in chains)


@dataclass(slots=True)
class Event:
    """A fault: when it began, what it was."""

    at: float
    text: str


@dataclass(slots=True)
class Stage:
    """What faults act upon, and what they leave in writing."""

    service: Service
    server: NatsServer
    router: Router
    rng: random.Random
    port: int
    counts: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    server_windows: list[Window] = field(default_factory=list)
    still_windows: list[Window] = field(default_factory=list)
    """The server stands still, as if cut off: what it has is late, and nothing is lost."""
    daemon_windows: list[Window] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    version: int = 0
    false_port: int = field(default_factory=free_port)
    """Of a second server that the host has, and that is none: `server_beside_is_false`."""
    # one at a time: the server's faults; whatever changes the host as a whole
    server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    host_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, kind: str, text: str = "") -> None:
        """A fault of that kind happens now."""
        self.counts[kind] += 1
        self.events.append(Event(time.time(), f"{kind} {text}".strip()))

    def settings(self) -> dict[str, dict[str, Any]]:
        """Settings that are good, and different each time."""
        rng = self.rng
        sections: dict[str, dict[str, Any]] = {
            "nats": {
                "servers": [self.server.url, f"nats://127.0.0.1:{self.false_port}"],
                "user": "host",
                "password_file": self.service.secret,
            },
            "python": {"path": [self.service.application, ROOT], "import_timeout": 5.0},
            "workers": {
                "count": rng.choice((1, 2, 3, 4, 4, 4, 4)),
                "concurrency": rng.choice((4, 16, 16, 32, 64)),
                "backlog": rng.choice((32, 64, 256, 1024)),
                "max_tasks": rng.choice((0, 0, 2000, 5000)),
                "kill_grace": 0.5,
                "drain_timeout": 8.0,
            },
            "runtime": {"directory": self.service.runtime},
        }
        for route in ROUTES:
            sections[f'handlers."{route}"'] = {"target": f"soak_app:{route}"}
        sections['handlers."few"'] = {"target": "soak_app:work", "concurrency": rng.choice((2, 4))}
        sections['handlers."pre:"'] = {"target": "soak_app:work"}
        sections['handlers.""'] = {"target": "soak_app:work"}
        return sections

    def write_good(self) -> None:
        """Settings and a module that work."""
        self.version += 1
        self.service.write_module(MODULE.format(version=self.version))
        self.service.write_settings(self.settings())
