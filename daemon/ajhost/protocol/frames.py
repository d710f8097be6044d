"""NATS frames out of a byte stream, sans-IO: the one scanner of the worker, the last resort and the takeover.

A message stays where it is: the scanner gives positions, so that a ledger entry can name a frame's place in shared
memory. Source of the grammar: NATS client protocol, `MSG`, `HMSG`, and one-line operations.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_CONTROL_LINE = 4096
"""Bytes of the longest operation line that a server sends (nats-server `max_control_line`)."""

_MSG, _HMSG = ord("M"), ord("H")


class FrameError(ValueError):
    """The server sent something that is no NATS frame; the connection cannot be read any further."""


Message = tuple[int, int, int, int, bytes, bytes]
"""`(begin, header, body, end, subject, reply)`: positions in the scanned bytes.

The header block is `data[header:body]` (empty without headers), the body `data[body:end - 2]`, the whole frame
`data[begin:end]`. `reply` is empty when nobody waits. A plain tuple: it is made once per request on the hot path.
"""


class Scan(NamedTuple):
    """What `scan` found."""

    messages: list[Message]
    controls: list[bytes]
    """Operation lines other than messages, whole with CRLF, in their order."""
    end: int
    """Everything before this position is whole and accounted for."""
    needed: int
    """Bytes from `end` on that the unfinished frame takes, as far as known; 0 when nothing or too little is there."""


def scan(data: bytes, position: int = 0, limit: int = 1 << 30) -> Scan:
    """Finds whole frames from `position` on, at most `limit` messages.

    :raises FrameError: for a line that is no operation, or longer than any server sends.
    """
    messages: list[Message] = []
    controls: list[bytes] = []
    size = len(data)
    needed = 0
    find = data.find
    while position < size:
        line_end = find(b"\r\n", position)
        if line_end < 0:
            if size - position > MAX_CONTROL_LINE and data[position] in (_MSG, _HMSG):
                raise FrameError("operation line too long")
            break
        kind = data[position]
        if kind != _HMSG and kind != _MSG:
            controls.append(data[position : line_end + 2])
            position = line_end + 2
            continue
        if len(messages) >= limit:
            break
        words = data[position:line_end].split()
        header = line_end + 2
        try:
            end = header + int(words[-1]) + 2
            if kind == _HMSG:
                body = header + int(words[-2])
                reply = words[3] if len(words) == 6 else b""
            else:
                body = header
                reply = words[3] if len(words) == 5 else b""
            subject = words[1]
        except (ValueError, IndexError) as error:
            raise FrameError(f"not a message line: {data[position:line_end][:80]!r}") from error
        if end > size:
            needed = end - position
            break
        messages.append((position, header, body, end, subject, reply))
        position = end
    return Scan(messages, controls, position, needed)


def message_line(data: bytes) -> tuple[bytes, bytes, int] | None:
    """The subject, reply and whole length of a message whose operation line is there, even when its body is not."""
    line_end = data.find(b"\r\n")
    words = data[:line_end].split() if line_end > 0 else []
    if not words or words[0] not in (b"MSG", b"HMSG"):
        return None
    fields = 6 if words[0] == b"HMSG" else 5
    reply = words[3] if len(words) == fields else b""
    return words[1], reply, line_end + 2 + int(words[-1]) + 2
