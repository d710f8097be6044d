"""Reads and checks a NATS server's INFO. Decides what follows from its `max_payload`: the largest request to prepare
for, 1 to 64 MiB, and the longest frame that is no error.

Source: NATS client protocol, `INFO`. A malformed line ends the connection: its sender is no server to work with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

LONGEST_INFO = 1 << 20
"""Bytes of an INFO line; a super-cluster's list of servers takes some kilobytes."""
DEFAULT_MAX_PAYLOAD = 1 << 20
"""Bytes, where a server does not say (nats-server, `MAX_PAYLOAD_SIZE`)."""
MOST_MAX_PAYLOAD = 1 << 26
"""Bytes of the largest payload that the host prepares for, whatever the server says."""
LONGEST_FRAME = 1 << 30
"""Bytes of the longest frame that the host skips, whatever max_payload the server says."""
LEAST_REQUEST = 1 << 20
"""Bytes of a request that the host prepares for at least: routers may send more than this host's user may."""
_FRAME_ROOM = 1 << 16
"""Bytes that a frame takes beyond max_payload at most: its line."""
_LONGEST_TEXT = 4096
_MOST_URLS = 10_000


class InfoError(ValueError):
    """Not the INFO of a NATS server."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """INFO. `told_max_payload` is the server's word, `max_payload` what the host makes of it."""

    server_id: str = ""
    version: str = ""
    told_max_payload: int = DEFAULT_MAX_PAYLOAD
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""
    headers: bool = False
    lame_duck: bool = False
    clustered: bool = False
    connect_urls: tuple[str, ...] | None = None

    @property
    def max_payload(self) -> int:
        """Bytes of payload and headers that this host sends and prepares for."""
        return min(self.told_max_payload, MOST_MAX_PAYLOAD)

    @property
    def largest_request(self) -> int:
        """Bytes of the largest request to prepare for."""
        return max(self.max_payload, LEAST_REQUEST)

    @property
    def longest_frame(self) -> int:
        """Bytes of the longest frame that is not an error.

        A server does not tell its clients when its max_payload grows at a reload, so frames up to MOST_MAX_PAYLOAD are
        accepted whatever it said.
        """
        return min(max(self.told_max_payload, MOST_MAX_PAYLOAD) + _FRAME_ROOM, LONGEST_FRAME)

    @property
    def offers_tls(self) -> bool:
        """Whether the server can encrypt the connection."""
        return self.tls_required or self.tls_available


def read_info(line: bytes) -> ServerInfo:
    """Reads the INFO line of a server, with or without its CRLF.

    :raises InfoError: when it is none.
    """
    kind, _, text = line.strip().partition(b" ")
    if kind.upper() != b"INFO":
        raise InfoError(f"{line[:40]!r} where INFO is expected")
    if len(line) > LONGEST_INFO:
        raise InfoError(f"INFO of {len(line)} bytes")
    try:
        found = orjson.loads(text)
    except ValueError:
        raise InfoError("INFO that is not JSON") from None
    if not isinstance(found, dict):
        raise InfoError("INFO that is no JSON object")
    return ServerInfo(
        server_id=_text(found, "server_id"),
        version=_text(found, "version"),
        told_max_payload=_size(found),
        tls_required=_flag(found, "tls_required"),
        tls_available=_flag(found, "tls_available"),
        nonce=_text(found, "nonce"),
        headers=_flag(found, "headers"),
        lame_duck=_flag(found, "ldm"),
        clustered=bool(_text(found, "cluster")),
        connect_urls=_urls(found),
    )


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise InfoError(f"INFO whose {name} is no text")
    return value


def _flag(found: dict[str, Any], name: str) -> bool:
    value = found.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InfoError(f"INFO whose {name} is neither true nor false")
    return value


def _size(found: dict[str, Any]) -> int:
    value = found.get("max_payload", DEFAULT_MAX_PAYLOAD)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InfoError("INFO whose max_payload is no number of bytes")
    return value


def _urls(found: dict[str, Any]) -> tuple[str, ...] | None:
    value = found.get("connect_urls")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MOST_URLS:
        raise InfoError("INFO whose connect_urls are no list of servers")
    if not all(isinstance(url, str) and len(url) <= _LONGEST_TEXT for url in value):
        raise InfoError("INFO with a server in connect_urls that is no text")
    return tuple(value)
