"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where `ajhost.toml` is written."""
    (tmp_path / "conf.d").mkdir()
    return tmp_path
