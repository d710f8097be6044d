"""The man pages name every key of the settings and every option of the commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from ajhost.cli.main import program
from ajhost.settings.schema import TABLES, Handler, table_at

PAGES = Path(__file__).parents[2] / "docs" / "man"


def plain(page: str) -> str:
    """A page without what is for the formatter alone."""
    return (PAGES / page).read_text().replace("\\-", "-").replace('""', '"')


def test_every_key_is_under_its_table() -> None:
    section = re.compile(r'^\.SH "\[(.*?)\]"\n(.*?)(?=^\.SH|\Z)', re.DOTALL | re.MULTILINE)
    sections = dict(section.findall(plain("ajhost.toml.5")))
    tables = {".".join(place): table for place, table in TABLES.items() if place} | {'handlers."ROUTE"': Handler}
    assert sections.keys() == tables.keys()
    for name, table in tables.items():
        named = {word for line in re.findall(r"^\.B (.*)$", sections[name], re.MULTILINE) for word in line.split(", ")}
        place = tuple(name.split("."))
        keys = {key for key in table.model_fields if name == 'handlers."ROUTE"' or table_at((*place, key)) is None}
        assert keys <= named, name


def test_every_command_and_option_is_there() -> None:
    text = plain("ajhost.1")
    context = click.Context(program)
    for name in program.list_commands(context):
        assert f"ajhost {name}" in text
        command = program.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(option in text for option in parameter.opts), f"{name} {parameter.opts}"


@pytest.mark.skipif(shutil.which("man") is None, reason="pages are formatted by Debian's package man-db")
@pytest.mark.parametrize("page", ["ajhost.1", "ajhost.toml.5", "ajhost.8"])
def test_a_page_is_formatted_without_a_warning(page: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", "--troff-device=utf8", PAGES / page],
        capture_output=True,
        text=True,
        check=True,
        env={"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == ""
