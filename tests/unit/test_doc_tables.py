"""The pages that are made of the code's tables are as the code is."""

from __future__ import annotations

import pytest

from scripts.lib.doc_tables import PAGES, ROOT, constants


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_is(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "scripts/doc-tables writes it anew"


def test_constants_are_read_with_their_sections_and_docstrings() -> None:
    source = 'ABOVE = 0\n# -- One ---\nA = 1 << 2\n"""What it\nis."""\nB = 3\n# -- Two: more ----\nC = 4\n"""D."""\n'
    assert constants(source) == {
        "One": [("A", "1 << 2", "What it is."), ("B", "3", "")],
        "Two: more": [("C", "4", "D.")],
    }
