"""Reads and writes a request's headers. Refuses another content type and a deadline that is no time (`bad request:`);
`core/deadline_budget.py` computes by when the answer must leave.

The other side is asyncjobs v0.3.0, request_reply_handler.go, and the header reader of nats.go behind it.
"""

from __future__ import annotations

from functools import lru_cache

from ajhost.protocol import timestamps
from ajhost.protocol.subjects import subjects_of
from ajhost.protocol.task_record import shown

CONTENT_TYPE = "application/x-asyncjobs-task+json"

_START = b"NATS/1.0"
_TYPE_NAME = b"\r\nAJ-Content-Type:"
_CONTENT_TYPE = CONTENT_TYPE.encode()
_DEADLINE_NAME = b"\r\nAJ-Handler-Deadline:"


def read_deadline(header: bytes) -> int | None:
    """Returns the deadline in a request's raw header block (may be `b""`), in Unix nanoseconds; None if it has none.

    Header names are case-sensitive and the first of a repeated name counts, as in nats.go. A request may lack a content
    type or a deadline, as one that a developer sends by hand does.

    :raises ValueError: the block or a value is malformed.
    """
    if not header:
        return None
    if not header.startswith(_START) or header[8:9] not in (b"\r", b" "):
        raise ValueError(f"the headers do not begin with NATS/1.0 but with {shown(_text(header[:16]))}")
    content_type = _value(header, _TYPE_NAME)
    if content_type is not None and content_type.partition(b";")[0].strip().lower() != _CONTENT_TYPE:
        raise ValueError(f"AJ-Content-Type must be {CONTENT_TYPE}, found {shown(_text(content_type))}")
    value = _value(header, _DEADLINE_NAME)
    if value is None:
        return None
    try:
        return timestamps.parse(_text(value))
    except ValueError as error:
        raise ValueError(f"AJ-Handler-Deadline: {error}") from None


LONGEST_KNOWN = 512
"""Bytes of the longest header block to pass to `known_deadline`, whose cache keeps them."""
known_deadline = lru_cache(maxsize=256)(read_deadline)
"""`read_deadline` with a cache: a router's header blocks are the same bytes for all tasks of one second."""


def encode_request(route: str, task: bytes, deadline_ns: int) -> tuple[str, dict[str, str], bytes]:
    """Returns subject, headers and body of a request as the router sends it.

    `deadline_ns` (Unix nanoseconds) is the moment by which the answer must leave: the router's own limit less 2 s. Its
    fraction is cut off, as the router does.
    """
    headers = {"AJ-Content-Type": CONTENT_TYPE, "AJ-Handler-Deadline": timestamps.render_seconds(deadline_ns)}
    return subjects_of(route)[0], headers, task


def _value(header: bytes, name: bytes) -> bytes | None:
    at = header.find(name)
    if at < 0:
        return None
    at += len(name)
    end = header.find(b"\r\n", at)
    return header[at : end if end >= 0 else len(header)].strip(b" \t")


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
