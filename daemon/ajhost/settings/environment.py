"""Says which AJHOST_ variables are settings, reads them (`AJHOST_NATS__SERVERS='["nats://nats:4222"]'`), and removes
them for processes that must not see them. `merge.py` lets them override the files.

They are for containers. A variable names a table and a key, joined by two underscores; its value is a text, a number,
true or false, or JSON for a list or a table. A name that begins with AJHOST_ without two underscores is no setting:
Kubernetes sets AJHOST_SERVICE_HOST and AJHOST_PORT in containers beside a service called `ajhost`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping, MutableMapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_origin

from ajhost.settings.errors import Problem
from ajhost.settings.sections import Settings

PREFIX = "AJHOST_"
DELIMITER = "__"
DEEPEST = 8
"""Levels of tables that a variable may name, and that are merged. The schema has three, and refuses a deeper one."""
_VARIABLES_OF_TABLES = {f"{PREFIX}{field.name}".upper() for field in fields(Settings) if field.name != "file"}


def setting_variables(environ: Mapping[str, str]) -> list[str]:
    """Returns the names of the variables that are settings, sorted."""
    return sorted(
        name for name in environ if name.startswith(PREFIX) and (DELIMITER in name or name in _VARIABLES_OF_TABLES)
    )


def remove_setting_variables(environ: MutableMapping[str, str], tables: Container[str] | None = None) -> None:
    """Removes the variables that are settings, those of these tables or all: for a process that must not see them."""
    for name in setting_variables(environ):
        if tables is None or name.removeprefix(PREFIX).lower().partition(DELIMITER)[0] in tables:
            del environ[name]


def is_text(value: str) -> bool:
    """Whether a text from the operating system is UTF-8: Python keeps other bytes as lone surrogates."""
    return re.search(r"[\ud800-\udfff]", value) is None


def read(
    environ: Mapping[str, str], kind_of: Callable[[tuple[str, ...]], Any]
) -> tuple[list[tuple[Path, dict[str, Any]]], list[Problem]]:
    """Reads the variables. `kind_of` returns the schema's type of a key, `dict` for a table; None for an unknown key.

    :returns: the place of each variable, for people, with its setting as the tables of a file; a problem for each value
        that cannot be parsed.
    """
    settings: list[tuple[Path, dict[str, Any]]] = []
    problems: list[Problem] = []
    for name in setting_variables(environ):
        path = tuple(name.removeprefix(PREFIX).lower().split(DELIMITER, DEEPEST))
        place = Path(f"{name} (environment)")
        if not is_text(name + environ[name]):
            problems.append(Problem(place, ".".join(path), "bytes that are not UTF-8", "a text"))
            continue
        try:
            value = _value(path, environ[name], kind_of)
        except (ValueError, RecursionError):  # of JSON
            problems.append(Problem(place, ".".join(path), "what is no JSON", "JSON for a list or a table"))
            continue
        for part in reversed(path):
            value = {part: value}
        settings.append((place, value))
    return settings, problems


def _value(path: tuple[str, ...], text: str, kind_of: Callable[[tuple[str, ...]], Any]) -> Any:
    """Returns the value of a variable's text. An unknown key keeps its text: the schema reports it."""
    kind = kind_of(path)
    is_json = kind is dict or get_origin(kind) in (list, dict)
    return _typed(path, json.loads(text) if is_json and text else text, kind_of)


def _typed(path: tuple[str, ...], value: Any, kind_of: Callable[[tuple[str, ...]], Any]) -> Any:
    """Converts texts to numbers and booleans where the schema has one: it is strict and takes no text for them."""
    if isinstance(value, dict):
        return {key: _typed((*path, key), part, kind_of) for key, part in value.items()}
    if not isinstance(value, str) or kind_of(path) in (None, str):
        return value
    try:
        plain = json.loads(value.lower())
    except (ValueError, RecursionError):
        return value
    return plain if isinstance(plain, bool | int | float) else value
