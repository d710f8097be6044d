"""Encodes replies: a result, `result too large: ...` where the server takes less or the router could not store it, or
an error in a header, its text made one line of at most 1,024 bytes.

The other side is asyncjobs v0.3.0, request_reply_handler.go, and the header reader of nats.go behind it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ajhost.protocol.outcome import Completed, Outcome, Terminated
from ajhost.protocol.safe_text import MISLEADING

_STORED_OVERHEAD = 256
"""Bytes that the router adds to a task's JSON to store it: field names, a time, `: terminate task` after an error."""
TEXT_LIMIT = 1024
"""Bytes of UTF-8 that an error text may have."""
_LEAST_TEXT = 64
_UNSAFE = re.compile(f"[\x00-\x1f{MISLEADING}]+")
"""Ends of lines, control characters, and characters that disguise a text: `ajc` prints errors as they are."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_TEXT = "no reason given"


def encode_result(reply: bytes, body: bytes, max_payload: int, task_size: int = 0) -> bytes:
    """Returns the whole `PUB` command with a result; empty if it exceeds a limit: see `encode_reply`."""
    size = len(body)
    # the router stores it in base64, with the task's JSON
    if task_size + (size + 2) // 3 * 4 + _STORED_OVERHEAD > max_payload:
        return b""
    return b"PUB %b %d\r\n%b\r\n" % (reply, size, body)


def encode_reply(reply: bytes, outcome: Outcome, max_payload: int, task_size: int = 0) -> bytes:
    """Returns the whole `PUB` or `HPUB` command that tells a router `outcome` on the subject `reply`.

    `max_payload` is the server's limit in bytes, `task_size` the length of the task's JSON. A result that exceeds the
    limit, or with which the router could not store the task, becomes AJ-Terminate: the server would end the connection
    for the first, and the second would leave the task active for ever. The router stores error texts as well, so they
    are cut further when the task is almost at the limit.
    """
    if isinstance(outcome, Completed):
        if data := encode_result(reply, outcome.body, max_payload, task_size):
            return data
        outcome = result_too_large(len(outcome.body), max_payload, task_size)
    name = b"AJ-Terminate" if isinstance(outcome, Terminated) else b"AJ-Error"
    # In the stored task's JSON one character of the text can become six.
    room = (max_payload - task_size - _STORED_OVERHEAD) // 6
    text = sanitise(outcome.text, min(TEXT_LIMIT, max(room, _LEAST_TEXT))).encode()
    header = b"NATS/1.0\r\n%b: %b\r\n\r\n" % (name, text)
    return b"HPUB %b %d %d\r\n%b\r\n" % (reply, len(header), len(header), header)


def result_too_large(size: int, max_payload: int, task_size: int) -> Terminated:
    """Returns the error to send in place of a result of `size` bytes that `encode_result` has refused."""
    if size > max_payload:
        return Terminated(too_large(size, max_payload))
    stored = task_size + (size + 2) // 3 * 4 + _STORED_OVERHEAD
    return Terminated(
        f"result too large to be stored: its {size} bytes and the task's {task_size} make about {stored}, "
        f"the server takes {max_payload}"
    )


def too_large(size: int, max_payload: int) -> str:
    return f"result too large: {size} bytes, the server takes {max_payload}"


def error_of(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Returns the name and text of a reply's error header; None for a result.

    A router looks at AJ-Terminate before AJ-Error, and ignores a blank value (request_reply_handler.go).
    """
    for name in ("AJ-Terminate", "AJ-Error"):
        if text := headers.get(name, "").strip():
            return name, text
    return None


def sanitise(text: str, limit: int = TEXT_LIMIT) -> str:
    """Makes `text` a header value: one line, not blank, at most `limit` bytes of UTF-8, whole characters.

    A Go router takes an empty value for no error, and drops every header if one has a line break: it would store a task
    that failed as complete.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and text.strip() == text and text:
        return text
    safe = _SURROGATE.sub("\ufffd", _UNSAFE.sub(" ", text)).strip()
    if len(safe) * 4 > limit:
        safe = safe.encode()[:limit].decode(errors="ignore").rstrip()
    return safe or _NO_TEXT
