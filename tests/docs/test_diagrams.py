"""The pictures of the docs show what their sources say. `scripts/diagrams` makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.diagrams import DIRECTORY, is_current

SOURCES = sorted(DIRECTORY.glob("*.mmd"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_picture_is_made_of_the_present_source(source: Path) -> None:
    assert is_current(source), "run scripts/diagrams"


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_picture_is_shown_on_a_page(source: Path) -> None:
    pages = "".join(page.read_text() for page in DIRECTORY.parent.glob("*.md"))
    assert f"(diagrams/{source.stem}.svg)" in pages


def test_every_picture_has_its_source() -> None:
    assert {p.stem for p in DIRECTORY.glob("*.svg")} == {p.stem for p in SOURCES}
