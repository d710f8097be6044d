"""Says what each path of `[http]` shows, read on request: `/metrics`, `/status`, `/healthz`, `/readyz` (503 with a line
for each slot that does not serve), the page at `/`, whose files are in the folder `page`, and `/events`, the feed that
it draws, for 16 viewers at most. `adapters/http.py` refuses one more, and who may not look.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import orjson

from ajhost.adapters.http import PLAIN_TEXT, CannotListen, Endpoint, Endpoints, HttpServer, Page, PageAccess, Stream
from ajhost.adapters.prometheus import CONTENT_TYPE, exposition
from ajhost.core.timings import PAGE_INTERVAL
from ajhost.protocol.credential_files import read_word
from ajhost.roles.recent_attempts import recent_attempts
from ajhost.roles.supervisor.supervisor import StartupFailed, Supervisor
from ajhost.settings.sections import HttpSettings

_log = logging.getLogger("ajhost.supervisor")
MOST_VIEWERS = 16
_KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)


async def listen(http: HttpSettings, runtime: Path, supervisor: Supervisor) -> HttpServer:
    """Starts the HTTP server.

    :raises StartupFailed: when it cannot listen there.
    """
    token = None if http.token_file is None else read_word(http.token_file.read_bytes()).encode()
    access = PageAccess(token, frozenset({*http.hosts, socket.gethostname().lower()}))
    if token is None and not http.local:
        _log.warning(
            "http.listen = %r: everybody who reaches it may see the page and the status; see token_file", http.listen
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

    return {
        "/metrics": Endpoint(lambda: Page(200, CONTENT_TYPE, exposition(supervisor.stats()))),
        "/status": Endpoint(status, guarded=True),
        "/healthz": Endpoint(lambda: Page(200, PLAIN_TEXT, b"ok\n")),
        "/readyz": Endpoint(ready),
        "/events": Endpoint(Feed(runtime, supervisor).stream, guarded=True, named=False),
        **{
            path: Endpoint(partial(_same, page), guarded=True, named=path == "/") for path, page in page_files().items()
        },
    }


def _same(page: Page) -> Page:
    return page


def page_files() -> dict[str, Page]:
    """Returns the page's files by path. All are the package's own: the page loads nothing from other servers."""
    here = Path(__file__).parent / "page"
    found = {f"/{name}": Page(200, kind, (here / name).read_bytes(), _HEADERS) for name, kind in _KINDS.items()}
    found["/"] = found.pop("/index.html")
    return found


class Feed:
    """The feed of server-sent events that the page draws.

    The host's state is read for all viewers together, twice per `PAGE_INTERVAL` at most, and not while there is none.
    """

    def __init__(self, runtime: Path, supervisor: Supervisor) -> None:
        self._runtime, self._supervisor = runtime, supervisor
        self._event, self._read_at = b"", float("-inf")

    def _now(self) -> bytes:
        now = time.monotonic()
        if now - self._read_at > PAGE_INTERVAL / 2:
            shown = {
                "at": time.time(),
                "status": self._supervisor.status(),
                "attempts": recent_attempts(self._runtime),
                "events": [
                    {"at": event.at, "kind": event.kind.value, "text": event.text}
                    for event in self._supervisor.timeline.newest_first()
                ],
            }
            self._event = b"data: " + orjson.dumps(shown, option=orjson.OPT_NON_STR_KEYS) + b"\n\n"
            self._read_at = now
        return self._event

    def stream(self) -> Stream:
        return Stream(self._events(), MOST_VIEWERS, "too many look at this page already")

    async def _events(self) -> AsyncGenerator[bytes]:
        """Yields an event at once, then one every `PAGE_INTERVAL` seconds."""
        yield b"retry: 1000\n\n"
        while True:
            yield self._now()
            await asyncio.sleep(PAGE_INTERVAL)
