"""Requests and replies as bytes: headers, texts, size limits.

The other side is asyncjobs v0.3.0, request_reply_handler.go, and the header reader of nats.go behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from ajhost.protocol import timestamps
from ajhost.protocol.outcome import Completed, Outcome, Terminated
from ajhost.protocol.safe_text import MISLEADING
from ajhost.protocol.subjects import subjects_of
from ajhost.protocol.task_record import shown

CONTENT_TYPE = "application/x-asyncjobs-task+json"
TEXT_LIMIT = 1024
"""Bytes of UTF-8 that an error text may have."""
_LEAST_TEXT = 64


_START = b"NATS/1.0"
_TYPE_NAME = b"\r\nAJ-Content-Type:"
_CONTENT_TYPE = CONTENT_TYPE.encode()
_DEADLINE_NAME = b"\r\nAJ-Handler-Deadline:"

# What the router adds to a task's JSON when it stores it: field names, a time, `: terminate task` after an error.
_STORED_OVERHEAD = 256
_UNSAFE = re.compile(f"[\x00-\x1f{MISLEADING}]+")
"""What ends a line, what a terminal obeys, what shows another text than there is: `ajc` prints errors as they are."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_TEXT = "no reason given"


def read_deadline(header: bytes) -> int | None:
    """The deadline of a request in Unix nanoseconds, by its raw header block (`b""` without one); None without it.

    Header names are case-sensitive and the first of a repeated name counts, as in nats.go. A request without a content
    type or a deadline is served: that is how people call by hand.

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
"""Bytes of the longest header block that `known_deadline` may be asked about, since it keeps them."""
known_deadline = lru_cache(maxsize=256)(read_deadline)
"""As `read_deadline`, for header blocks that come again: a router's are the same bytes for all tasks of one second."""


def encode_result(reply: bytes, body: bytes, max_payload: int, task_size: int = 0) -> bytes:
    """The whole `PUB` command with a result; nothing if it exceeds a limit: see `encode_reply`."""
    size = len(body)
    if task_size + (size + 2) // 3 * 4 + _STORED_OVERHEAD > max_payload:
        return b""
    return b"PUB %b %d\r\n%b\r\n" % (reply, size, body)


def encode_reply(reply: bytes, outcome: Outcome, max_payload: int, task_size: int = 0) -> bytes:
    """The whole `PUB` or `HPUB` command that tells a router `outcome` on the subject `reply`.

    `max_payload` is the server's limit in bytes, `task_size` the length of the task's JSON. A result that exceeds the
    limit, or with which the router could not store the task, is told as AJ-Terminate: sent as it is, the first would
    cost the connection, the second would leave the task active for ever. Error texts are stored as well, so they are
    cut further when the task is almost at the limit.
    """
    if isinstance(outcome, Completed):
        if data := encode_result(reply, outcome.body, max_payload, task_size):
            return data
        outcome = as_told(outcome, max_payload, task_size)
        assert isinstance(outcome, Terminated)
    name = b"AJ-Terminate" if isinstance(outcome, Terminated) else b"AJ-Error"
    # In the stored task's JSON one character of the text can become six.
    room = (max_payload - task_size - _STORED_OVERHEAD) // 6
    text = sanitise(outcome.text, min(TEXT_LIMIT, max(room, _LEAST_TEXT))).encode()
    header = b"NATS/1.0\r\n%b: %b\r\n\r\n" % (name, text)
    return b"HPUB %b %d %d\r\n%b\r\n" % (reply, len(header), len(header), header)


def as_told(outcome: Completed, max_payload: int, task_size: int) -> Completed | Terminated:
    """The result, or why it cannot be told: see `encode_reply`."""
    size = len(outcome.body)
    stored = task_size + (size + 2) // 3 * 4 + _STORED_OVERHEAD
    if stored <= max_payload:
        return outcome
    if size > max_payload:
        return Terminated(f"result too large: {size} bytes, the server takes {max_payload}")
    return Terminated(
        f"result too large to be stored: its {size} bytes and the task's {task_size} make about {stored}, "
        f"the server takes {max_payload}"
    )


def encode_request(route: str, task: bytes, deadline_ns: int) -> tuple[str, dict[str, str], bytes]:
    """Subject, headers and body of a request as the router sends it.

    `deadline_ns` (Unix nanoseconds) is the moment by which the answer must leave: the router takes its own limit less
    2 s. Its fraction is cut off, as the router does.
    """
    headers = {"AJ-Content-Type": CONTENT_TYPE, "AJ-Handler-Deadline": timestamps.render_seconds(deadline_ns)}
    return subjects_of(route)[0], headers, task


def error_of(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Name and text of the header by which a reply tells an error; None for a result.

    A router looks at AJ-Terminate before AJ-Error, and takes a blank value for none (request_reply_handler.go).
    """
    for name in ("AJ-Terminate", "AJ-Error"):
        if text := headers.get(name, "").strip():
            return name, text
    return None


def sanitise(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` as a header value can carry it: one line, not blank, at most `limit` bytes of UTF-8, whole characters.

    Go counts an empty value as no error at all, and a line break would make it drop every header, so a task that
    failed would be stored as complete.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and text.strip() == text and text:
        return text
    safe = _SURROGATE.sub("\ufffd", _UNSAFE.sub(" ", text)).strip()
    if len(safe) * 4 > limit:
        safe = safe.encode()[:limit].decode(errors="ignore").rstrip()
    return safe or _NO_TEXT


def _value(header: bytes, name: bytes) -> bytes | None:
    at = header.find(name)
    if at < 0:
        return None
    at += len(name)
    end = header.find(b"\r\n", at)
    return header[at : end if end >= 0 else len(header)].strip(b" \t")


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
