"""The way of a task and of a death: as short as it is, and told by docs/architecture.md."""

from __future__ import annotations

import re

import pytest

from scripts.lib.walks.walk import Walk, walks
from tests.support.host import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
MOST_FILES = {"One request": 12, "One death": 15}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def both() -> dict[str, Walk]:
    task, death = walks(ROOT)
    return {"One request": task, "One death": death}


def told(section: str) -> set[str]:
    """The files of a way, as the page tells it."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`([\w/]+\.py)`", text.partition("The way:")[2].partition(".\n")[0]))


@pytest.mark.parametrize("section", MOST_FILES)
def test_a_way_is_short_and_the_page_tells_it(both: dict[str, Walk], section: str) -> None:
    way = both[section].way
    assert set(way) == told(section)
    assert len(way) <= MOST_FILES[section]


@pytest.mark.parametrize("section", MOST_FILES)
def test_go_to_definition_follows_every_jump(both: dict[str, Walk], section: str) -> None:
    assert both[section].unnamed == []
