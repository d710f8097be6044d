"""Replaces replies in a byte string that a server would refuse, since it takes less than the server before."""

from __future__ import annotations

from typing import NamedTuple

from ajhost.protocol.frames import is_plain_subject, is_size
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.reply_encoding import encode_reply
from ajhost.protocol.result_size import too_large

_HEADER_BEGINS = 64
"""Bytes after a subject that contain the name of the first header."""


class Change(NamedTuple):
    """A replaced or dropped publication, in words; for a reply also its subject, and the outcome in its place."""

    text: str
    subject: bytes = b""
    outcome: Failed | Terminated | None = None


def outcome_told(data: bytes, subject: bytes) -> type[Outcome] | None:
    """Returns the type of outcome of the reply on this subject; None if it is not among these publications."""
    at = data.find(b"PUB %b " % subject)
    if at < 0:
        return None
    if data[at - 1 : at] != b"H":
        return Completed
    begins = at + len(subject)
    return Terminated if b"\r\nAJ-Terminate:" in data[begins : begins + _HEADER_BEGINS] else Failed


def fit(data: bytes, max_payload: int) -> tuple[bytes, list[Change]]:
    """Returns `PUB` and `HPUB` commands such that a server with this limit accepts them, and the changes.

    A server ends the connection of a client that sends more, at each attempt. So a reply that is too large becomes
    AJ-Terminate, which tells the router why. Drops commands with an invalid subject, and bytes that are no command.
    """
    kept: list[bytes] = []
    changes: list[Change] = []
    position = 0
    while position < len(data):
        line_end = data.find(b"\r\n", position)
        words = data[position:line_end].split(b" ") if line_end >= 0 else []
        if words[:1] not in ([b"PUB"], [b"HPUB"]) or not is_size(words[-1]):
            changes.append(Change(f"{len(data) - position} bytes that are no reply are left out"))
            break
        size, end = int(words[-1]), line_end + 2 + int(words[-1]) + 2
        fields = 3 if words[0] == b"PUB" else 4
        if len(words) != fields or not is_plain_subject(words[1]):
            changes.append(Change(f"a reply to {data[position:line_end][:80]!r} is left out"))
        elif size > max_payload:
            text = too_large(size, max_payload)
            outcome = Terminated(text)
            instead = encode_reply(words[1], outcome, max_payload)
            if int(instead[: instead.index(b"\r\n")].rpartition(b" ")[2]) > max_payload:
                left_out = f"{text}, and no error text either: a reply is left out"
                changes.append(Change(left_out, words[1], Failed.because(FailureReason.REPLY_REFUSED, text)))
            else:
                kept.append(instead)
                changes.append(Change(f"{text}: told as AJ-Terminate", words[1], outcome))
        else:
            kept.append(data[position:end])
        position = end
    return b"".join(kept), changes
