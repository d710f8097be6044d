"""Published messages as bytes, and what becomes of them at a server that takes less than the one before."""

from __future__ import annotations

from ajhost.protocol.frames import is_plain_subject
from ajhost.protocol.outcome import Terminated
from ajhost.protocol.wire import encode_reply


def fit(data: bytes, max_payload: int) -> tuple[bytes, list[str]]:
    """`PUB` and `HPUB` commands as a server with this limit takes them, and what was changed, in words.

    A server cuts the connection of who sends more, each time anew: what is too large becomes AJ-Terminate, which tells
    the router why. What is no such command, or has a subject that nobody can publish to, is left out.
    """
    kept: list[bytes] = []
    changes: list[str] = []
    position = 0
    while position < len(data):
        line_end = data.find(b"\r\n", position)
        words = data[position:line_end].split(b" ") if line_end >= 0 else []
        if words[:1] not in ([b"PUB"], [b"HPUB"]) or not words[-1].isdigit():
            changes.append(f"{len(data) - position} bytes that are no reply are left out")
            break
        size, end = int(words[-1]), line_end + 2 + int(words[-1]) + 2
        fields = 3 if words[0] == b"PUB" else 4
        if len(words) != fields or not is_plain_subject(words[1]):
            changes.append(f"a reply to {data[position:line_end][:80]!r} is left out")
        elif size > max_payload:
            text = f"result too large: {size} bytes, the server takes {max_payload}"
            told = encode_reply(words[1], Terminated(text), max_payload)
            if int(told[: told.index(b"\r\n")].rpartition(b" ")[2]) > max_payload:
                changes.append(f"{text}, and no error text either: a reply is left out")
            else:
                kept.append(told)
                changes.append(f"{text}: told as AJ-Terminate")
        else:
            kept.append(data[position:end])
        position = end
    return b"".join(kept), changes
