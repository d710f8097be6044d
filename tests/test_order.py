"""Tests that share what is made once for their module are run by one process."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.order import LONGEST_FIRST, TOGETHER

ROOT = Path(__file__).parents[1]
MADE_ONCE = re.compile(r'^@\w+\.fixture\(scope="module"', re.MULTILINE)


def test_every_module_that_makes_something_for_itself_stays_together() -> None:
    shared = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if MADE_ONCE.search(path.read_text()) and path.parent.name != "long"
    }
    assert shared - TOGETHER.keys() == set()


def test_what_the_order_names_is_there() -> None:
    assert [name for name in TOGETHER if not (ROOT / name).is_file()] == []
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).is_dir()] == []
