"""The errors of a configuration: one `Problem` for each mistake, all of them in one `SettingsError`. Composes their
lines, `FILE: KEY: found ..., allowed: ...`, cuts long values, and hides what may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ajhost.protocol.secret_masking import hidden, may_be_secret

_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in words: its file and key, the value found there, and what is allowed. Shows no secret."""

    file: Path
    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        text = f"{self.file}: {self.key}: found {self.found}, allowed: {self.allowed}"
        # names of files and keys may hold ends of lines and control characters
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class SettingsError(Exception):
    """The configuration cannot be used. `problems` has every mistake of every file; the text has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class InvalidValue(ValueError):
    """A value that cannot be used. The caller that knows file and key makes a `Problem` of it."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"found {found}, allowed: {allowed}")
        self.found = found
        self.allowed = allowed


def shown(value: object) -> str:
    """Returns a found value for a problem's text; hides what may be a secret."""
    if isinstance(value, str) and may_be_secret(value):
        return hidden(value)
    match value:
        case None:
            return "nothing"
        case Mapping():
            return "a table"
        case list():
            return "a list" if value else "an empty list"
        case bool() | str():
            text = json.dumps(value, ensure_ascii=False)
        case int() if value.bit_length() > _LONGEST * 3:
            text = f"a number of {value.bit_length()} bits"  # Python writes no more than 4300 digits
        case _:
            text = str(value)
    return _short(text)


def quoted(text: str) -> str:
    """Returns a text as JSON, cut if it is long."""
    return _short(json.dumps(text, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
