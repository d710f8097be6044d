"""What is remembered of an attempt fits its place, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.roles.recent_attempts import DIRECTORY, RecentAttempts, recent_attempts


@pytest.mark.parametrize("character", ["x", "\0", '"', "\N{SNOWMAN}", "\N{GRINNING FACE}"])
def test_names_and_texts_of_any_characters_are_cut_to_their_place(tmp_path: Path, character: str) -> None:
    attempts = RecentAttempts(tmp_path)
    attempts.add(
        id=character * 1000,
        type=character * 1000,
        tries=(1 << 64) - 1,
        outcome="failed",
        reason="worker died",
        text=character * 1000,
    )
    (attempt,) = recent_attempts(tmp_path)
    assert attempt["outcome"] == "failed"
    assert set(attempt["id"]) <= {character}


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b'"id"', b'"iX"'),
        (b'"at":1', b'"at":9e99'),
        (b'"tries":1', b'"tries":-'),
        (b'"type":"mail"', b'"type": null '),
        (b'"text":"it ', b'"text":["","'),
    ],
)
def test_a_record_that_was_written_over_is_left_out(tmp_path: Path, written: bytes, instead: bytes) -> None:
    attempts = RecentAttempts(tmp_path)
    for number in (1, 2):
        attempts.add(id=f"{number}", type="mail", tries=1, outcome="failed", reason="r", text="it failed")
    (file,) = (tmp_path / DIRECTORY).iterdir()
    content = file.read_bytes()
    at = content.index(written, content.index(b"{"))
    file.write_bytes(content[:at] + instead + content[at + len(instead) :])
    assert [attempt["id"] for attempt in recent_attempts(tmp_path)] == ["2"]
