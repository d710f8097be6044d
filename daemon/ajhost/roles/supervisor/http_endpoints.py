"""Serves page, metrics, status, health and readiness over HTTP. All is read on request."""

from __future__ import annotations

import logging
import socket
import time
from functools import partial
from pathlib import Path

import orjson

from ajhost.adapters.http import PLAIN_TEXT, CannotListen, Endpoint, Endpoints, HttpServer, Page
from ajhost.adapters.http_access import PageAccess
from ajhost.adapters.prometheus import CONTENT_TYPE, exposition
from ajhost.protocol.credential_files import read_word
from ajhost.roles.recent_attempts import recent_attempts
from ajhost.roles.supervisor.page.feed import Feed, files
from ajhost.roles.supervisor.supervisor import StartupFailed, Supervisor
from ajhost.settings.sections import HttpSettings

_log = logging.getLogger("ajhost.supervisor")


async def listen(http: HttpSettings, runtime: Path, supervisor: Supervisor) -> HttpServer:
    """Starts the HTTP server.

    :raises StartupFailed: when it cannot listen there.
    """
    token = None if http.token_file is None else read_word(http.token_file.read_bytes()).encode()
    access = PageAccess(token, frozenset({*http.hosts, socket.gethostname().lower()}))
    if token is None and not http.local:
        _log.warning(
            "http.listen = %r: everybody who reaches it may see the page and the status; see token_file",
            http.listen,
        )
    try:
        return await HttpServer.start(http.listen, endpoints(runtime, supervisor), access)
    except CannotListen as error:
        raise StartupFailed(f"http.listen: {error}") from error


def endpoints(runtime: Path, supervisor: Supervisor) -> Endpoints:
    """Returns the endpoints by path. Health, readiness and metrics are for monitoring, the rest is guarded."""

    def status() -> Page:
        return Page(200, "application/json", orjson.dumps(supervisor.status()))

    def ready() -> Page:
        missing = supervisor.unserved()
        text = "".join(f"{line}\n" for line in missing) or "ready\n"
        return Page(503 if missing else 200, PLAIN_TEXT, text.encode())

    feed = Feed(lambda: _told(runtime, supervisor))
    return {
        "/metrics": Endpoint(lambda: Page(200, CONTENT_TYPE, exposition(supervisor.stats()))),
        "/status": Endpoint(status, guarded=True),
        "/healthz": Endpoint(lambda: Page(200, PLAIN_TEXT, b"ok\n")),
        "/readyz": Endpoint(ready),
        "/events": Endpoint(feed.stream, guarded=True, named=False),
        **{path: Endpoint(partial(_same, page), guarded=True, named=path == "/") for path, page in files().items()},
    }


def _same(page: Page) -> Page:
    return page


def _told(runtime: Path, supervisor: Supervisor) -> dict[str, object]:
    """Returns all that the page shows."""
    return {
        "at": time.time(),
        "status": supervisor.status(),
        "attempts": recent_attempts(runtime),
        "events": [{"at": e.at, "kind": e.kind.value, "text": e.text} for e in supervisor.timeline.newest_first()],
    }
