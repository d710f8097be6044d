"""docs/performance.md names files and commands that there are."""

from __future__ import annotations

import re

from scripts.lib.bench.__main__ import arguments
from scripts.lib.doc_tables import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text()


def test_every_file_that_a_decision_names_is_there() -> None:
    named = re.findall(r"`([a-z_/]+\.py)`", PAGE)
    assert len(named) > 10
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_benchmark_is_a_command() -> None:
    commands = set(re.findall(r"`scripts/bench ([^`]+)`", PAGE))
    assert {arguments(command.split()).command for command in commands} == {
        "cost",
        "counting",
        "memory",
        "respawn",
        "waiting",
    }
