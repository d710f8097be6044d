"""The stable words of error texts: one home, and they never change."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from ajhost.protocol.outcome import Failed, Terminated
from ajhost.protocol.reasons import REASONS, FailureReason, reason_of
from scripts.lib.doc_tables import PACKAGE, ROOT, meanings

HOME = PACKAGE / "protocol" / "reasons.py"
PROGRESS = dict.fromkeys(
    (
        "cli/drain.py",
        "core/status_report.py",
        "roles/supervisor/drain.py",
        "roles/supervisor/shutdown.py",
        "roles/supervisor/state_file.py",
    ),
    "draining",
)
"""What is told of a stop or a drain, to systemd and in the log, is no error text."""


def typed_words(source: str) -> Iterator[tuple[int, str]]:
    """Strings of a module, but for docstrings, that begin with a stable word and a colon."""
    tree = ast.parse(source)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in told:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            for reason in FailureReason:
                if text.startswith(f"{reason.value}:") or text == reason.value:
                    yield node.lineno, reason.value


def test_no_stable_word_is_typed_but_in_its_home() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {word}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != HOME
        for line, word in typed_words(path.read_text())
        if PROGRESS.get(str(path.relative_to(PACKAGE))) != word
    ]
    assert wrong == []


def test_typed_words_are_found_in_strings_and_formats_and_not_in_docstrings() -> None:
    lines = [
        '"""bad request: no."""',
        'a = "bad request: x"',
        'b = f"worker died: {a}"',
        'c = "a draining: y"',
        'd = "draining"',
    ]
    source = "\n".join(lines)
    assert set(typed_words(source)) == {(2, "bad request"), (3, "worker died"), (5, "draining")}


def test_the_words_are_those_that_people_and_alerts_match() -> None:
    assert {
        "handler error",
        "invalid payload",
        "invalid result",
        "deadline exceeded",
        "worker died",
        "overloaded",
        "draining",
        "bad request",
        "unknown task type",
        "host error",
    } <= {reason.value for reason in FailureReason}


def test_every_word_is_explained_and_named_in_the_readme() -> None:
    said = meanings(HOME.read_text(), "FailureReason")
    readme = (ROOT / "README.md").read_text()
    assert [reason.value for reason in FailureReason if not said[reason.name]] == []
    assert [reason.value for reason in FailureReason if f"`{reason.value}:`" not in readme] == []


@pytest.mark.parametrize("outcome", [Failed, Terminated])
def test_an_outcome_begins_with_the_word_of_its_reason(outcome: type[Failed | Terminated]) -> None:
    assert outcome.because(FailureReason.BAD_REQUEST, "no JSON").text == "bad request: no JSON"


@pytest.mark.parametrize("text", ["handler error: ValueError: x", "worker died: SIGKILL", "overloaded: full"])
def test_a_reason_is_the_word_with_which_an_answer_begins(text: str) -> None:
    assert reason_of(text) == text.partition(":")[0]
    assert reason_of(text) in REASONS


@pytest.mark.parametrize("text", ["", "x", "Handler error: y", "no such: word"])
def test_a_text_without_a_stable_word_has_another_reason(text: str) -> None:
    assert reason_of(text) == "other"
