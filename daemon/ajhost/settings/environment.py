"""Reads settings from the environment, for containers: `AJHOST_NATS__SERVERS='["nats://nats:4222"]'`.

A variable names a table and a key, joined by two underscores; its value is a text, a number, true or false, or JSON for
a list or a table. Variables override files. A name that begins with AJHOST_ without two underscores is no setting:
Kubernetes sets AJHOST_SERVICE_HOST and AJHOST_PORT in containers beside a service called `ajhost`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic.fields import FieldInfo

from ajhost.settings.configuration_files import DELIMITER, PREFIX, is_text, setting_variables
from ajhost.settings.errors import Problem
from ajhost.settings.schema import DEEPEST, table_at


def read(environ: Mapping[str, str]) -> tuple[list[tuple[Path, dict[str, Any]]], list[Problem]]:
    """Reads the variables.

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
            settings.append((place, _nested(path, _value(path, environ[name]))))
        except (ValueError, RecursionError):  # of JSON
            problems.append(Problem(place, ".".join(path), "what is no JSON", "JSON for a list or a table"))
    return settings, problems


def _value(path: tuple[str, ...], text: str) -> Any:
    """Returns the value of a variable's text. An unknown key keeps its text: the schema reports it."""
    field = _field(path)
    is_json = table_at(path) is not None or (field is not None and get_origin(field.annotation) in (list, dict))
    return _typed(path, json.loads(text) if is_json and text else text)


def _field(path: tuple[str, ...]) -> FieldInfo | None:
    table = table_at(path[:-1])
    return None if table is None else table.model_fields.get(path[-1])


def _typed(path: tuple[str, ...], value: Any) -> Any:
    """Converts texts to numbers and booleans where the schema has one: it is strict and takes no text for them."""
    if isinstance(value, dict):
        return {key: _typed((*path, key), part) for key, part in value.items()}
    field = _field(path)
    if not isinstance(value, str) or field is None or field.annotation is str:
        return value
    try:
        plain = json.loads(value.lower())
    except (ValueError, RecursionError):
        return value
    return plain if isinstance(plain, bool | int | float) else value


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value  # type: ignore[no-any-return]
