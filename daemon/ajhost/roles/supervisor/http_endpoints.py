"""What the host shows over HTTP: metrics, status, health and readiness. All of it is read at the time of asking."""

from __future__ import annotations

from pathlib import Path

import orjson

from ajhost.adapters.http import Page, Pages
from ajhost.adapters.prometheus import CONTENT_TYPE, exposition
from ajhost.roles import host_client
from ajhost.roles.supervisor.supervisor import Supervisor

_TEXT = "text/plain; charset=utf-8"


def pages(runtime: Path, supervisor: Supervisor) -> Pages:
    """The pages by path."""

    def status() -> Page:
        report = host_client.status(runtime, supervisor.serial, supervisor.ledger)
        return Page(200, "application/json", orjson.dumps(report.as_object()))

    def ready() -> Page:
        missing = supervisor.unserved()
        text = "".join(f"{line}\n" for line in missing) or "ready\n"
        return Page(503 if missing else 200, _TEXT, text.encode())

    return {
        "/metrics": lambda: Page(200, CONTENT_TYPE, exposition(supervisor.stats())),
        "/status": status,
        "/healthz": lambda: Page(200, _TEXT, b"ok\n"),
        "/readyz": ready,
    }
