"""Finds and reads the files of a configuration: the main one (none is needed beside settings of the environment), and
the drop-ins of conf.d. Refuses one that is no regular file or too large; explains syntax errors of TOML.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ajhost.settings.environment import setting_variables
from ajhost.settings.errors import InvalidValue

_LARGEST = 4 << 20
"""The largest file that is read, in bytes: 10,000 handlers take 1 MiB, which Python's TOML parser reads in a second."""
_DROP_INS = "conf.d"
_TOML = ".toml"
_POSITION = re.compile(r" \(at (.*)\)\Z")
_BARE_ROUTE = re.compile(r"\s*\[\s*handlers\s*\.\s*[^\"'\]]*:")
_CURES = {
    "Invalid value": 'texts stand in "straight quotes", true and false are written so',
    "Expected '=' after a key": "a key and its value are joined by =, tables begin with [name]",
    "Invalid statement": 'a line is a [table], a key = value, or a comment that begins with "#"',
    "Invalid initial character for a key part": "what is in { } stands on one line and ends without a comma",
    "Expected newline or end of document": 'one statement a line, comments begin with "#"',
    "Expected ']' at the end of a table": "other characters than letters, digits, _ and - stand in quotes",
    "Unescaped": "backslashes are doubled, or the text stands in 'single quotes'",
    "Cannot declare": "a table or key is written once in each file",
    "Cannot overwrite a value": "a table or key is written once in each file",
}
"""The cure of a mistake, by the beginning of the message of Python's TOML parser."""


def configuration_files(file: Path, environ: Mapping[str, str]) -> list[Path]:
    """Returns `file` and its drop-ins in the order in which they are merged; none if the file is absent and settings
    are in the environment.

    :raises OSError: when the directory of the drop-ins cannot be listed.
    """
    if setting_variables(environ) and not os.path.exists(file):
        return []
    return [file, *(path for path in _in_drop_ins(file) if path.name.endswith(_TOML))]


def ignored_files(file: Path) -> list[Path]:
    """Returns the files among the drop-ins of `file` whose names do not end with .toml: mistakes, mostly."""
    return [path for path in _in_drop_ins(file) if not path.name.endswith(_TOML)]


def _in_drop_ins(file: Path) -> list[Path]:
    directory = file.parent / _DROP_INS
    try:
        return sorted(path for path in directory.iterdir() if path.name[0] != ".")
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        if directory.is_file():
            raise
        return []


def read_whole(path: Path) -> tuple[bytes, os.stat_result]:
    """Returns the content of a file, and its stat(2).

    :raises InvalidValue: it is no regular file, which might never end, or is too large. :raises OSError: it cannot be
        read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a FIFO would block
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidValue("no regular file", "a file")
        content: bytes | None = file.read(_LARGEST + 1)
    if content is None:  # the kernel says "regular" of /proc/kmsg, too
        raise InvalidValue("no regular file: a read of it waits", "a file")
    if len(content) > _LARGEST:
        raise InvalidValue(f"more than {_LARGEST >> 20} MiB", f"at most {_LARGEST >> 20} MiB")
    return content, found


class TomlError(ValueError):
    """A text is no TOML, for the `reason`, at `position`, a line or the file. `cure`: what helps, if that is known."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(message)
        where = _POSITION.search(message)
        self.reason = message[: where.start()] if where else message
        self.position = where[1] if where else "file"
        self.cure = next((cure for start, cure in _CURES.items() if self.reason.startswith(start)), "")
        lines = text.splitlines()
        if (number := re.match(r"line (\d+)", self.position)) is None and where:
            self.position = f"line {len(lines)}"
        elif number is not None and _BARE_ROUTE.match(lines[int(number[1]) - 1]):
            self.cure = 'a route with ":" is written in quotes: [handlers."email:new"]'


def parse_toml(text: str) -> dict[str, Any]:
    """Returns the tables of a TOML text.

    :raises TomlError: it is no TOML, or Python's parser raises one of its undocumented exceptions.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(text, str(error)) from None
    except RecursionError:
        raise TomlError(text, "lists or tables are nested too deeply") from None
    except ValueError:  # of CPython's `int`: no more digits than sys.get_int_max_str_digits()
        raise TomlError(text, "a number has too many digits") from None
