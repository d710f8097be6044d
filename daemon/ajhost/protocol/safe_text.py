"""Foreign text made safe for a log, a terminal and journald: no control characters in it, and no secrets."""

from __future__ import annotations

import re

# C0 but for tab and newline, DEL, C1: they would drive the reader's terminal, and make journalctl print "[blob data]".
# Marks of direction and line separators of Unicode: they would show another text than there is (UTR 36)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
NKEY_SEED = r"\bS[ACNOPUX][A-Z2-7]{56}\b"
"""S, its kind, base32 (github.com/nats-io/nkeys)."""
# user, password or token in a URL, and seeds
_SECRET = re.compile(rf"(?<=://)[^\s/\"']+(?=@)|{NKEY_SEED}")


def clean(text: str) -> str:
    """`text` without control characters (shown as `\\x1b`) and without secrets (shown as `***`)."""
    if not text.isprintable():
        text = _CONTROL.sub(_escaped, text)
    return _SECRET.sub("***", text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """`clean` text without ends of lines, for what stands within a line: an id may hold anything."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def printable(text: str) -> str:
    """Text of a task or a server for a place without room, with `?` for characters that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)
