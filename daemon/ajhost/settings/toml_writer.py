"""Writes settings as TOML, for the hosts that `ajhost dev` and the pytest fixture start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ajhost.settings.sections import Settings

_OTHERS = ("file", "nats", "handlers", "runtime", "signature", "http")
"""Sections that a development host does not take: it has its own server and directory, and checks no signatures."""


def toml_text(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a settings file of the sections' keys and values. Mappings among the values become inline tables."""
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{json.dumps(key)} = {_value(value)}" for key, value in keys.items()), ""])
        for name, keys in sections.items()
    )


def development_sections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Returns the sections of a development host: all but `_OTHERS`, without keys that have their defaults."""
    sections = {
        field.name: changed
        for field in fields(settings)
        if field.name not in _OTHERS
        and is_dataclass(table := getattr(settings, field.name))
        and (changed := _changed(table))
    }
    for handler in settings.handlers:
        sections[f"handlers.{json.dumps(handler.route)}"] = _changed(handler, but=("route",))
    return sections


def _changed(table: Any, but: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the fields whose values differ from the defaults. Paths are absolute."""
    kind = type(table)
    default = kind(**{name: "" for name in ("route", "target") if name in kind.__dataclass_fields__})
    return {
        field.name: value
        for field in fields(table)
        if field.name not in but and (value := getattr(table, field.name)) != getattr(default, field.name)
    }


def _value(value: object) -> str:
    """Returns a value as TOML, which writes strings, lists, numbers and booleans as JSON does."""
    if value and isinstance(value, tuple) and all(isinstance(item, tuple) for item in value):
        value = dict(value)  # the settings have tables as pairs
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value, default=str)
