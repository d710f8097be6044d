"""The pages that are made of the code's tables are as the code is."""

from __future__ import annotations

import json
import re

import pytest

from ajhost.protocol.reasons import FailureReason
from scripts.lib.doc_tables import (
    DIAGRAMS,
    PACKAGE,
    PAGES,
    ROOT,
    TABLES,
    constants,
    meanings,
    public,
    summary,
    with_table,
)
from tests.support.large_status import large_report


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_is(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "scripts/doc-tables writes it anew"


def test_every_module_and_package_says_what_it_is() -> None:
    texts = {path: summary(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert not [path for path, text in texts.items() if not text]
    page = PAGES["modules.md"]()
    assert not [path for path, text in texts.items() if text.replace("|", "\\|") not in page]


@pytest.mark.parametrize("reason", FailureReason)
def test_the_page_of_modules_leads_to_who_answers_with_a_stable_word(reason: FailureReason) -> None:
    rows = [row for row in PAGES["modules.md"]().splitlines() if f"`{reason.value}" in row]
    assert [row for row in rows if not row.startswith("| `reasons.py`")]


def test_a_row_of_a_module_has_its_first_paragraph_and_what_is_public() -> None:
    source = '"""Reads a\nthing.\n\nMore.\n"""\nclass A:\n    def b(self): ...\ndef _c(): ...\nasync def d(): ...\n'
    assert summary(source) == "Reads a thing."
    assert public(source) == ["A", "d"]


def test_constants_are_read_with_their_sections_and_docstrings() -> None:
    source = 'ABOVE = 0\n# -- One ---\nA = 1 << 2\n"""What it\nis."""\nB = 3\n# -- Two: more ----\nC = 4\n"""D."""\n'
    assert constants(source) == {
        "One": [("A", "1 << 2", "What it is."), ("B", "3", "")],
        "Two: more": [("C", "4", "D.")],
    }


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_a_table_is_as_the_code_is(page: str, name: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert text == with_table(text, name, TABLES[page, name]()), "scripts/doc-tables writes it anew"


def test_a_table_without_a_place_is_an_error() -> None:
    with pytest.raises(LookupError, match="one"):
        with_table("<!-- table other -->\n<!-- end -->", "one", "")


def test_comments_above_the_members_of_an_enum_are_their_meanings() -> None:
    source = "class E(Enum):\n    #: The\n    #: first.\n    A = 1\n    B = 2\n    #: Third.\n    C = 3\n"
    assert meanings(source, "E") == {"A": "The first.", "B": "", "C": "Third."}


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_source_of_a_diagram_is_as_the_code_is(name: str) -> None:
    source = (ROOT / "docs" / "diagrams" / f"{name}.mmd").read_text()
    assert source == DIAGRAMS[name](), "scripts/doc-tables and scripts/diagrams write it anew"


def test_every_key_of_the_status_is_documented() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    documented = set(re.findall(r"`(\w+)`", page.partition("\n## JSON\n")[2].partition("\n## ")[0]))

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(keys, value.values()))
        return set().union(*map(keys, value)) if isinstance(value, list) else set()

    told = json.loads(json.dumps(large_report(8, 2, 60).as_object()))
    for worker in told["workers"]:
        del worker["counts"]  # counters of one process, which metrics have for all
    for route in told["routes"]:
        del route["failed"], route["refused"]  # keys are reasons
    missing = keys(told) - documented - {"failed", "refused"}
    assert not missing, missing
    assert {"deadline", "since_s", "p99_s", "silent_s"} <= keys(told)
