"""Settings from the environment, for containers: `AJHOST_NATS__SERVERS='["nats://nats:4222"]'`.

A variable names a table and a key, joined by two underscores; its value is a text, a number, true or false, or JSON for
a list or a table. Variables override files. A name that begins with AJHOST_ without two underscores is no setting:
Kubernetes sets AJHOST_SERVICE_HOST and AJHOST_PORT in the containers beside a service called `ajhost`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

from ajhost.settings.configuration_files import DELIMITER, PREFIX, is_text, setting_variables
from ajhost.settings.errors import Problem
from ajhost.settings.schema import DEEPEST, Document, table_at


def read(environ: Mapping[str, str]) -> tuple[list[tuple[Path, dict[str, Any]]], list[Problem]]:
    """Reads the variables.

    :returns: of each variable its place, for people, and its setting as the tables of a file; a problem for each value
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
            found = _parsed(name, environ[name]) if len(path) <= DEEPEST else {}
        except _NotParsed:
            problems.append(Problem(place, ".".join(path), "what is no JSON", "JSON for a list or a table"))
            continue
        # pydantic-settings ignores an unknown name, which the schema shall report
        settings.append((place, found or _nested(path, environ[name])))
    return settings, problems


class _NotParsed(Exception):
    """A variable for a list or a table is no JSON."""


@functools.cache
def _variables() -> Any:
    """The fields of `Document` as a model of pydantic-settings, which costs a command 60 ms of CPU: it is imported only
    where a variable is a setting."""
    from pydantic_settings import BaseSettings

    fields: dict[str, Any] = {name: (field.annotation, None) for name, field in Document.model_fields.items()}
    return create_model("Variables", __base__=BaseSettings, **fields)


def _parsed(name: str, value: str) -> dict[str, Any]:
    from pydantic_settings import EnvSettingsSource
    from pydantic_settings.exceptions import SettingsError

    source = EnvSettingsSource(_variables(), env_prefix=PREFIX, env_nested_delimiter=DELIMITER)
    source.env_vars = {name.lower(): value}
    try:
        tables: dict[str, Any] = source()
    except (SettingsError, RecursionError) as error:
        raise _NotParsed from error
    return {key: _typed((key,), part) for key, part in tables.items()}


def _typed(path: tuple[str, ...], value: Any) -> Any:
    """Converts texts to numbers and booleans where the schema wants one: a strict schema takes no text for them."""
    if isinstance(value, dict):
        return {key: _typed((*path, key), part) for key, part in value.items()}
    table: type[BaseModel] | None = table_at(path[:-1])
    field = None if table is None else table.model_fields.get(path[-1])
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
