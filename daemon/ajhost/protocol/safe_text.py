"""Makes foreign text safe for a log, a terminal and journald: no control characters, and no secrets."""

from __future__ import annotations

import re

from ajhost.protocol.secret_masking import without_secrets

MISLEADING = (
    "\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0001\U000e0020-\U000e007f"
)
"""For a pattern's character class: DEL and C1, and direction marks, line separators and zero-width characters, which
disguise a text (UTR 36). Not the zero-width joiners, which emoji and Persian words need.
"""
# C0 except tab and newline: they would control the reader's terminal, and make journalctl print "[blob data]".
# Surrogates, which stand for bytes in names of files: UTF-8 cannot hold them
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\ud800-\udfff{MISLEADING}]")


def clean(text: str) -> str:
    """Returns `text` without control characters (shown as `\\x1b`) and without secrets (shown as `***`)."""
    if not text.isprintable():
        text = _CONTROL.sub(_escaped, text)
    return without_secrets(text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Returns `clean` text without line ends, for a place within a line: an id may have any character."""
    return clean(text).replace("\n", "\\n").replace("\t", "\\t")


def printable(text: str) -> str:
    """Returns `text` with `?` for each unprintable character, for a place without room for escapes."""
    return "".join(c if c.isprintable() else "?" for c in text)
