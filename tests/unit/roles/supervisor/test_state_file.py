"""The state file: what one process writes another one reads, and half of it is never seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.roles.supervisor import state_file
from ajhost.roles.supervisor.state_file import HostState

STATE = HostState(12, 3, True, 4, {2: ("email:", ""), 3: ("sms",)})


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state_file.write(tmp_path, STATE)
    assert state_file.read(tmp_path) == STATE
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"], "nothing else is left behind"


def test_the_last_state_counts(tmp_path: Path) -> None:
    state_file.write(tmp_path, STATE)
    later = HostState(12, 4, False, 1, {})
    state_file.write(tmp_path, later)
    assert state_file.read(tmp_path) == later


def test_a_reader_that_has_the_file_open_keeps_the_whole_earlier_state(tmp_path: Path) -> None:
    state_file.write(tmp_path, STATE)
    with (tmp_path / "state.json").open("rb") as reader:
        state_file.write(tmp_path, HostState(1, 1, False, 1, {}))
        assert b'"pid":12' in reader.read()


def test_a_write_that_was_cut_short_changes_nothing(tmp_path: Path) -> None:
    state_file.write(tmp_path, STATE)
    (tmp_path / "state.json.new").write_bytes(b'{"pid":')
    assert state_file.read(tmp_path) == STATE
    state_file.write(tmp_path, STATE)
    assert state_file.read(tmp_path) == STATE


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"pid":1,"generation":1,"ready":true,"count":1}',
        b'{"pid":"x","generation":1,"ready":true,"count":1,"routes":{}}',
        b'{"pid":null,"generation":1,"ready":true,"count":1,"routes":{}}',
        b'{"pid":1,"generation":1,"ready":true,"count":1,"routes":[]}',
        b'{"pid":1,"generation":1,"ready":true,"count":1,"routes":{"x":[]}}',
        b'{"pid":1,"generation":1,"ready":true,"count":1,"routes":{"1":3}}',
        b'{"pid":1,"generation":1,"ready":true,"count":1,"routes":{"1":[3]}}',
        b'{"pid":1,"generation":1,"ready":true,"count":"77777777777777777777777","routes":{}}',
        b'{"pid":1,"generation":1,"ready":true,"count":1,"routes":{},"died_at":"-inf"}',
        b'{"pid":1,"generation":1,"ready":true,"count":1,"routes":{},"settings":null}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_state_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "state.json").write_bytes(text)
    assert state_file.read(tmp_path) is None


def test_without_a_file_there_is_no_state(tmp_path: Path) -> None:
    assert state_file.read(tmp_path) is None
    assert state_file.read(tmp_path / "missing") is None
