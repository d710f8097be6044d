"""Reads the table `[runtime]`, its `directory` and `user`, of a configuration that may have errors elsewhere.

Commands like `status` and `reload` need the runtime directory alone. They must find it even if another part of the file
is wrong: the running host then rejects the reload with the reason. No schema is used, so pydantic is not imported.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ajhost.settings.configuration_files import TomlError, configuration_files, parse_toml, read_whole
from ajhost.settings.environment import DELIMITER, PREFIX
from ajhost.settings.errors import InvalidValue
from ajhost.settings.sections import RuntimeSettings

_VARIABLES = f"{PREFIX}RUNTIME{DELIMITER}"
_TABLE = re.compile(r"^[ \t]*\[[ \t]*runtime[ \t]*\].*?(?=^[ \t]*\[|\Z)", re.MULTILINE | re.DOTALL)


def runtime_directory(file: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Returns the runtime directory: the environment's, else that of `file` and its drop-ins, else the default.

    :raises InvalidValue: `[runtime]` cannot be read. :raises OSError: a file cannot be read.
    """
    directory = _named(file, "directory", environ, str(RuntimeSettings().directory))
    if not isinstance(directory, str) or not directory:
        raise InvalidValue(f"runtime.directory = {directory!r}", "a path")
    return Path(directory)


def runtime_user(file: Path, environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns the user that root becomes; None without one. A wrong value is reported when the settings are loaded.

    :raises InvalidValue: when a file is no TOML. :raises OSError: when a file cannot be read.
    """
    user = _named(file, "user", environ, None)
    return user if isinstance(user, str) and user else None


def _named(file: Path, key: str, environ: Mapping[str, str], default: object) -> object:
    """Returns a key of `[runtime]`: the environment's, else the last file's."""
    if named := environ.get(f"{_VARIABLES}{key.upper()}"):
        return named
    value = default
    for path in configuration_files(file, environ):
        value = _table(path).get(key, value)
    return value


def _table(path: Path) -> dict[str, object]:
    try:
        content, _ = read_whole(path)
    except InvalidValue as unfit:
        raise InvalidValue(f"{path}: {unfit.found}", unfit.allowed) from None
    text = content.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
    try:
        table = parse_toml(text).get("runtime", {})
    except TomlError as error:
        table = _rescued(path, text, error)
    if not isinstance(table, dict):
        raise InvalidValue(f"{path}: runtime = {table!r}", "a table [runtime]")
    return table


def _rescued(path: Path, text: str, error: TomlError) -> object:
    """Returns the table `[runtime]` of a file with a syntax error elsewhere."""
    part = _TABLE.search(text)
    if part is not None:
        try:
            return parse_toml(part[0])["runtime"]
        except TomlError:
            pass  # the error of the whole file is raised below
    raise InvalidValue(f"a TOML syntax error in {path}: {error}", "TOML") from None
