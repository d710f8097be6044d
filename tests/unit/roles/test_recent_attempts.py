"""What is remembered of an attempt fits its place, whatever it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.roles.recent_attempts import RecentAttempts, recent_attempts


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
