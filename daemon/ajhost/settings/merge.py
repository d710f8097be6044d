"""Merges ajhost.toml, its drop-ins of conf.d and the environment into tables, and keeps the source of each key: an
error names that file or variable. Refuses a file that everybody may write, or that is not UTF-8.
"""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ajhost.protocol.secret_masking import hidden, may_be_secret
from ajhost.settings import environment
from ajhost.settings.configuration_files import TomlError, configuration_files, parse_toml, read_whole
from ajhost.settings.environment import DEEPEST, is_text
from ajhost.settings.errors import InvalidValue, Problem, quoted
from ajhost.settings.schema import kind_of

_READABLE = "a TOML file that this user can read"
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")

KeyPath = tuple[str | int, ...]
_Sources = dict[tuple[str, ...], Path]
"""The file or variable of each key."""


class MergedTables:
    """The merged tables: later files override earlier ones, variables override files. `problems`: the found ones."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._sources: _Sources = {}
        self.raw: dict[str, Any] = {}
        self.modes: dict[Path, int] = {}
        """The modes of the files that were read."""
        self.problems: list[Problem] = []
        self.whole = True
        """Whether every file could be read. If not, a missing key is no problem: it may be in one that could not."""
        if not is_text(str(file.absolute())):  # workers, commands and the page get it as a text
            self.problems.append(Problem(file, "file", "a path that is not UTF-8", "a path in UTF-8"))
        settings, problems = environment.read(environ, kind_of)
        self._read_all()
        self._override(settings)
        self.problems += problems

    def source(self, path: KeyPath) -> Path:
        """Returns the file or the variable of a key."""
        names = tuple(part for part in path if isinstance(part, str))
        while names and names not in self._sources:
            names = names[:-1]
        return self._sources.get(names, self._file)

    def add(self, path: KeyPath, found: str, allowed: str) -> None:
        self.problems.append(Problem(self.source(path), key_text(path), found, allowed))

    def _read_all(self) -> None:
        try:
            files = configuration_files(self._file, self._environ)
        except OSError as error:
            self._read(self._file)
            self._unreadable(Path(error.filename), error.strerror or "", "a directory that this user can read")
            return
        for file in files:
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            content, found = read_whole(file)
        except OSError as error:
            self._unreadable(file, error.strerror or str(error), _READABLE)
            return
        except InvalidValue as unfit:
            self._unreadable(file, unfit.found, f"a TOML file, {unfit.allowed}")
            return
        self.modes[file] = mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IWOTH:
            told = f"mode {mode:04o}, which lets everybody write"
            self.problems.append(Problem(file, "file", told, f"chmod o-w {file}"))
        try:
            text = content.removeprefix(codecs.BOM_UTF8).decode()  # editors of Windows write one
            _merge(self.raw, parse_toml(text), file, self._sources)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            self._unreadable(file, "a byte that is not UTF-8", "TOML in UTF-8", f"line {line}")
        except TomlError as error:
            hint = f"; {error.cure}" if error.cure else ""
            self._unreadable(file, f"a TOML syntax error ({error.reason})", f"TOML 1.0{hint}", error.position)

    def _unreadable(self, file: Path, found: str, allowed: str, key: str = "file") -> None:
        self.whole = False
        self.problems.append(Problem(file, key, found[:1].lower() + found[1:], allowed))

    def _override(self, settings: list[tuple[Path, dict[str, Any]]]) -> None:
        """Merges the variables with each other, and then into the files' tables."""
        variables: dict[str, Any] = {}
        sources: _Sources = {}
        for place, tables in settings:
            _merge(variables, tables, place, sources)
        _merge(self.raw, variables, self._file, self._sources)
        self._sources |= sources


def _merge(
    into: dict[str, Any], new: dict[str, Any], place: Path, sources: _Sources, path: tuple[str, ...] = ()
) -> None:
    for key, value in new.items():
        sources[*path, key] = place
        if isinstance(value, dict) and len(path) < DEEPEST:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, place, sources, (*path, key))
        else:
            into[key] = value


def key_text(path: KeyPath) -> str:
    """Returns a key as errors name it."""
    text = ""
    for index, part in enumerate(path):
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        is_route = index == 1 and path[0] == "handlers"
        name = part if _BARE.match(part) and not is_route else quoted(part)
        if may_be_secret(part):
            name = f"({hidden(part)})"
        text += f".{name}" if text else name
    return text
