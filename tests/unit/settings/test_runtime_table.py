"""Where a host is, told by configurations that are wrong elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ajhost.settings.errors import InvalidValue
from ajhost.settings.runtime_table import runtime_directory

RUNTIME = '[runtime]\ndirectory = "/run/x"\n'


def find(directory: Path, text: str) -> Path:
    (directory / "ajhost.toml").write_text(text)
    return runtime_directory(directory / "ajhost.toml")


@pytest.mark.parametrize(
    "text", ["", "[runtime]", "[nats]\nservers = 3", "[handlers.x]\ntarget = 'a:b'\n[unknown]\nkey = 1"]
)
def test_it_is_the_default_if_nothing_says_otherwise(tmp_path: Path, text: str) -> None:
    assert find(tmp_path, text) == Path("/run/ajhost")


@pytest.mark.parametrize(
    "text",
    [
        RUNTIME,
        f"{RUNTIME}[workers]\ncuont = 0",
        f"[broken\n{RUNTIME}",
        f"{RUNTIME}[python]\n[python]\n",
        f"[handlers.email:new]\ntarget = 'a:b'\n{RUNTIME}",
    ],
)
def test_a_file_that_is_wrong_elsewhere_still_tells(tmp_path: Path, text: str) -> None:
    assert find(tmp_path, text) == Path("/run/x")


def test_the_last_drop_in_decides(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "1.toml").write_text('[runtime]\ndirectory = "/run/y"')
    (tmp_path / "conf.d" / "2.toml").write_text("[log]\nlevel = 'info'")
    assert find(tmp_path, RUNTIME) == Path("/run/y")


@pytest.mark.parametrize(
    "text",
    [
        "[nats\n",
        "[runtime]\ndirectory = [\n",
        "runtime = 3",
        "[runtime]\ndirectory = 3",
        f"[workers]\nbacklog = {'9' * 5000}",
        f"[nats]\nservers = {'[' * 3000}",
    ],
)
def test_a_file_that_cannot_tell_is_an_error_and_never_the_default(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidValue):
        find(tmp_path, text)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runtime_directory(tmp_path / "ajhost.toml")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ajhost.toml")
    with pytest.raises(InvalidValue, match="no regular file"):
        runtime_directory(tmp_path / "ajhost.toml")
