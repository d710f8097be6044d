"""Finds NATS frames in a byte stream, sans-IO, for a worker's connection, the supervisor's, and recovery.

The scanner copies no message: it returns positions, so that a ledger entry can name a frame's place in shared memory.
Source of the grammar: NATS client protocol, `MSG`, `HMSG`, and one-line operations.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ajhost.protocol.server_info import LONGEST_INFO

LONGEST_LINE = 1 << 16
"""Bytes of an operation line at most, except INFO. A server takes 4096 from a publisher unless it is configured
otherwise (`max_control_line`), and the line that it sends to subscribers is longer by the subscription's id.
"""
_LONGEST_SIZE = 18
"""Digits of a number of bytes."""

_MSG, _HMSG = ord("M"), ord("H")
_SUBJECT = re.compile(rb"[^\x00- \x7f.]+(?:\.[^\x00- \x7f.]+)*")


class FrameError(ValueError):
    """The server sent something that is no NATS frame; the connection cannot be read any further."""


Message = tuple[int, int, int, int, bytes, bytes]
"""`(begin, header, body, end, subject, reply)`: positions in the scanned bytes.

The header block is `data[header:body]` (empty without headers), the body `data[body:end - 2]`, the whole frame
`data[begin:end]`. `reply` is empty without a reply subject. A plain tuple, since one is made for each request.
"""


class Scan(NamedTuple):
    messages: list[Message]
    controls: list[bytes]
    """Operation lines other than messages, whole with CRLF, in their order."""
    end: int
    """All frames before this position are whole, and in `messages` or `controls`."""
    needed: int
    """The length of the unfinished frame at `end`, in bytes; 0 while its line is not whole, or without one."""


def scan(data: bytes, position: int = 0, limit: int = 1 << 30) -> Scan:
    """Finds whole frames from `position` on, at most `limit` messages.

    It does not check other operation lines: the caller does.

    :raises FrameError: when it begins with a message whose line is malformed or too long, or whose end is not where
        the line says. Whole frames before such a message are returned first, so that they are not lost.
    """
    messages: list[Message] = []
    controls: list[bytes] = []
    size = len(data)
    needed, start, problem = 0, position, ""
    find = data.find
    while position < size:
        line_end = find(b"\r\n", position)
        if line_end < 0:
            if size - position > LONGEST_LINE and not _is_info(data, position, size):
                problem = "operation line too long"
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
            if len(words) == 6 and words[0] == b"HMSG":  # as a router's requests are
                _, subject, _, reply, head, whole = words
            else:
                subject, reply, head, whole = _fields(words)
            body, end = header + int(head), header + int(whole) + 2
            if not header <= body <= end - 2:
                raise ValueError("sizes of no message")
        except ValueError:
            problem = f"not a message line: {data[position:line_end][:80]!r}"
            break
        if end > size:
            needed = end - position
            break
        if data[end - 2 : end] != b"\r\n":
            problem = f"no end where this says: {data[position:line_end][:80]!r}"
            break
        messages.append((position, header, body, end, subject, reply))
        position = end
    if problem and position == start:
        raise FrameError(problem)
    # not `Scan(...)`, which calls Python code
    return tuple.__new__(Scan, (messages, controls, position, needed))


def _fields(words: list[bytes]) -> tuple[bytes, bytes, bytes, bytes]:
    """Returns subject, reply, bytes of headers and of the whole, of a message's line. Raises ValueError for others."""
    match words:
        case [b"HMSG", subject, _, reply, head, whole]:
            return subject, reply, head, whole
        case [b"HMSG", subject, _, head, whole]:
            return subject, b"", head, whole
        case [b"MSG", subject, _, reply, whole]:
            return subject, reply, b"0", whole
        case [b"MSG", subject, _, whole]:
            return subject, b"", b"0", whole
    raise ValueError("not the fields of a message")


def _is_info(data: bytes, position: int, size: int) -> bool:
    """Whether an unfinished line may be INFO, which is longer than any other."""
    return data[position : position + 4].upper() == b"INFO" and size - position <= LONGEST_INFO


def is_size(word: bytes) -> bool:
    """Whether a word is a number of bytes. Python reads no number of more than 4300 digits."""
    return word.isdigit() and len(word) <= _LONGEST_SIZE


def message_line(data: bytes) -> tuple[bytes, bytes, int] | None:
    """Returns subject, reply and whole length of a message whose line has arrived, even if its body has not."""
    line_end = data.find(b"\r\n")
    try:
        subject, reply, _, size = _fields(data[: max(line_end, 0)].split())
    except ValueError:
        return None
    return (subject, reply, line_end + 2 + int(size) + 2) if is_size(size) else None


def is_one_message(data: bytes) -> bool:
    """Whether `data` is a whole message and nothing else."""
    try:
        found = scan(data)
    except FrameError:
        return False
    return len(found.messages) == 1 and not found.controls and found.end == len(data)


def is_plain_subject(subject: bytes) -> bool:
    """Whether a client can publish to `subject`: no blank or control character, no empty token, no wildcard."""
    return bool(_SUBJECT.fullmatch(subject)) and not {b"*", b">"} & set(subject.split(b"."))


def reply_of(frame: bytes) -> bytes:
    """Returns the reply subject of a message whose operation line at least is there; empty when there is none."""
    line = message_line(frame)
    return b"" if line is None else line[1]
