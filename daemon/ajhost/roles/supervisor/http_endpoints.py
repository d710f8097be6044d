"""What the host shows over HTTP: metrics, status, health and readiness. All of it is read at the time of asking."""

from __future__ import annotations

from pathlib import Path

import orjson

from ajhost.adapters.http import Page, Pages
from ajhost.adapters.prometheus import CONTENT_TYPE, exposition
from ajhost.core.fleet import Fleet, WorkerState
from ajhost.roles import host_client
from ajhost.roles.supervisor.supervisor import Supervisor

_TEXT = "text/plain; charset=utf-8"


def pages(runtime: Path, supervisor: Supervisor) -> Pages:
    """The pages by path."""

    def status() -> Page:
        report = host_client.status(runtime, supervisor.serial)
        return Page(200, "application/json", orjson.dumps(report.as_object()))

    def ready() -> Page:
        missing = unserved(supervisor.fleet)
        text = "".join(f"{line}\n" for line in missing) or "ready\n"
        return Page(503 if missing else 200, _TEXT, text.encode())

    return {
        "/metrics": lambda: Page(200, CONTENT_TYPE, exposition(supervisor.stats())),
        "/status": status,
        "/healthz": lambda: Page(200, _TEXT, b"ok\n"),
        "/readyz": ready,
    }


def unserved(fleet: Fleet) -> list[str]:
    """A line for each slot that does not serve, with the state of what is there instead."""
    if fleet.stopping:
        return ["the host is stopping"]
    if not fleet.count:
        return ["the host is starting"]
    lines = []
    for slot in range(fleet.count):
        standings = {m.state for m in fleet.members.values() if m.slot == slot}
        if WorkerState.SERVING not in standings:
            states = ", ".join(sorted(s.value for s in standings)) or "no worker, a next try is due"
            lines.append(f"slot {slot} does not serve: {states}")
    return lines
