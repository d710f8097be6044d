"""Whatever arrives is read or refused as it is documented: a few seconds of what `scripts/fuzz` does for minutes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from scripts.lib.fuzz.targets import check, readers

NAMES = [reader.name for reader in readers(Path())]


@pytest.mark.parametrize("name", NAMES)
def test_changed_input_is_read_or_refused_as_documented_by(tmp_path: Path, name: str) -> None:
    (reader,) = (reader for reader in readers(tmp_path) if reader.name == name)
    count, failures = check(reader, random.Random(name), time.monotonic() + 0.15)
    assert not failures, failures[0]
    assert count
