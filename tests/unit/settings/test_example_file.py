"""`etc/ajhost.toml`: every key explained, every default true, nothing served until somebody says what."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ajhost.settings.errors import SettingsError
from ajhost.settings.load import load
from ajhost.settings.schema import TABLES, Handler, table_at
from ajhost.settings.sections import HandlerSettings, Settings

FILE = Path(__file__).parents[3] / "etc" / "ajhost.toml"
DEFAULT = re.compile(r"^#(\w+ = .*|\[\w+\])$", re.MULTILINE)
EXAMPLE = re.compile(r"^# (\w+ = .*|\[\w.*\])$", re.MULTILINE)


def keys_of(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from keys_of(value, (*path, key))
        else:
            yield (*path, key)


def test_as_installed_it_says_that_handlers_are_needed_and_nothing_else() -> None:
    with pytest.raises(SettingsError) as caught:
        load(FILE, {})
    assert [(problem.key, problem.found) for problem in caught.value.problems] == [("handlers", "nothing")]


def test_every_default_that_it_shows_is_the_default(tmp_path: Path) -> None:
    text = DEFAULT.sub(r"\1", FILE.read_text())
    defaults = [line for line in DEFAULT.findall(FILE.read_text()) if line[0] != "["]
    assert len(defaults) == sum(1 for _ in keys_of(tomllib.loads(text)))
    file = tmp_path / "ajhost.toml"
    file.write_text(f'{text}\n[handlers.""]\ntarget = "a:b"\n')
    assert asdict(load(file, {})) == asdict(Settings(file, (HandlerSettings("", "a:b"),)))


def test_every_key_is_in_it_and_none_that_there_is_not() -> None:
    document = tomllib.loads(EXAMPLE.sub(r"\1", DEFAULT.sub(r"\1", FILE.read_text())))
    shown = {path if path[0] != "handlers" else ("handlers", path[-1]) for path in keys_of(document)}
    shown = {path[:2] if path[:2] in (("log", "levels"), ("log", "limits")) else path for path in shown}
    known = {
        (*place, name)
        for place, table in TABLES.items()
        for name in table.model_fields
        if table_at((*place, name)) is None and (*place, name) != ("handlers",)
    } | {("handlers", name) for name in Handler.model_fields}
    in_words = {("nats", "password"), ("nats", "token")}  # beside password_file and token_file
    assert shown | in_words == known
    assert "password = " in FILE.read_text()
    assert "token = " in FILE.read_text()


def test_what_the_documentation_shows_can_be_appended(tmp_path: Path) -> None:
    file = tmp_path / "ajhost.toml"
    table = "[{}]\n{}\n"
    shown = [table.format("nats", 'servers = ["nats://h"]'), table.format("python", "path = []")]
    shown += [table.format('handlers."email:new"', 'target = "a:b"'), table.format("workers", "count = 2")]
    file.write_text(FILE.read_text() + "".join(shown))
    assert load(file, {}).workers.count == 2


def test_the_examples_are_valid_but_for_the_files_that_they_name(tmp_path: Path) -> None:
    text = EXAMPLE.sub(r"\1", re.sub(r"^#(\[\w+\])$", r"\1", FILE.read_text(), flags=re.MULTILINE))
    file = tmp_path / "ajhost.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, {"HOME": str(tmp_path)})
    named = {
        "creds",
        "nkey",
        "password_file",
        "token_file",
        "ca",
        "cert",
        "key",
        "interpreter",
        "key_file",
        "context",
    }
    beside_context = {"tls", "user", "creds", "nkey", "token_file", "password_file"}
    assert {problem.key.rpartition(".")[2] for problem in caught.value.problems} <= named | beside_context
