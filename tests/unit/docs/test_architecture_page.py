"""docs/architecture.md names files that there are; its glossary and its index are as long as they should be."""

from __future__ import annotations

import re

import pytest

from scripts.lib.doc_tables import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def rows(section: str) -> list[list[str]]:
    """The rows of the table of a section, without its head."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def exists(name: str) -> bool:
    """Whether a module has that path, from the package or from a folder of `roles/supervisor`."""
    return any((base / name).exists() for base in (PACKAGE, PACKAGE / "roles", PACKAGE / "roles" / "supervisor"))


def test_every_module_that_is_named_is_there() -> None:
    named = {name for name in re.findall(r"`([\w/]+\.py)`", PAGE) if not name.startswith("tests/")}
    assert len(named) > 50
    assert [name for name in sorted(named) if not exists(name)] == []


@pytest.mark.parametrize("section", ["Glossary", "Where is ..."])
def test_a_table_of_words_has_a_meaning_for_each(section: str) -> None:
    found = rows(section)
    assert [row for row in found if len(row) != 2 or not row[1]] == []
    assert len({row[0] for row in found}) == len(found)


def test_the_glossary_is_short_and_the_index_long() -> None:
    assert 20 <= len(rows("Glossary")) <= 30
    assert len(rows("Where is ...")) >= 40


def test_other_pages_that_are_named_are_there() -> None:
    linked = re.findall(r"\]\(([^):#]+)\)", PAGE)
    assert [name for name in linked if not (ROOT / "docs" / name).exists()] == []
