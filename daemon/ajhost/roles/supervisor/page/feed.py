"""Serves the page at `/`: its files, and the feed of server-sent events that it draws.

The host's state is read for all viewers together, twice per `PAGE_INTERVAL` at most, and not while there is none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import orjson

from ajhost.adapters.http import Page, Stream
from ajhost.core.timings import PAGE_INTERVAL

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


def files() -> dict[str, Page]:
    """Returns the page's files by path. All are the package's own: the page loads nothing from other servers."""
    here = Path(__file__).parent
    found = {f"/{name}": Page(200, kind, (here / name).read_bytes(), _HEADERS) for name, kind in _KINDS.items()}
    found["/"] = found.pop("/index.html")
    return found


class Feed:
    """The feed of all viewers. `look` returns all that the page shows, as an object for JSON."""

    def __init__(self, look: Callable[[], Mapping[str, object]]) -> None:
        self._look = look
        self._event, self._read_at = b"", float("-inf")

    def _now(self) -> bytes:
        now = time.monotonic()
        if now - self._read_at > PAGE_INTERVAL / 2:
            self._event = b"data: " + orjson.dumps(self._look(), option=orjson.OPT_NON_STR_KEYS) + b"\n\n"
            self._read_at = now
        return self._event

    def stream(self) -> Stream:
        """Returns the stream for one more viewer."""
        return Stream(self._events(), MOST_VIEWERS, "too many look at this page already")

    async def _events(self) -> AsyncGenerator[bytes]:
        """Yields an event at once, then one every `PAGE_INTERVAL` seconds."""
        yield b"retry: 1000\n\n"
        while True:
            yield self._now()
            await asyncio.sleep(PAGE_INTERVAL)
