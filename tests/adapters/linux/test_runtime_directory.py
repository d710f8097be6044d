"""The runtime directory: made, or refused with what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ajhost.adapters.linux import runtime_directory
from ajhost.adapters.linux.runtime_directory import UnfitDirectory

NOBODY = 65534


@pytest.fixture
def nobody() -> Iterator[None]:
    """The test runs as nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)


def test_one_that_this_user_may_not_make_is_refused_with_what_to_do(tmp_path: Path, nobody: None) -> None:
    directory = tmp_path / "run" / "ajhost"
    with pytest.raises(UnfitDirectory) as refused:
        runtime_directory.prepare(directory)
    assert str(refused.value) == (
        f"{directory} cannot be made by user {NOBODY}: name one of this user's by `directory` in [runtime], "
        "or set XDG_RUNTIME_DIR, as a login does"
    )
