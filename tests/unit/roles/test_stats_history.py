"""The history of statistics: a minute of samples, for whoever reads the file later."""

from __future__ import annotations

from pathlib import Path

import pytest

from ajhost.adapters.linux.stats_files import DIRECTORY
from ajhost.core.route_stats import RouteStats, StatsWriter, file_size, read
from ajhost.roles.stats_history import Sample, StatsHistory, baseline

SECOND = 1_000_000_000


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    (tmp_path / DIRECTORY).mkdir()
    return tmp_path


def counted() -> RouteStats:
    memory = bytearray(file_size(1))
    StatsWriter(memoryview(memory), ("a",)).completed([(0, 0.1, 0.2)])
    return read(bytes(memory))["a"]


def test_a_sample_is_read_as_it_was_taken(runtime: Path) -> None:
    sample = Sample(5, {"a": counted(), None: RouteStats(), "": counted()}, {12: 3.5})
    StatsHistory(runtime).add(sample)
    assert baseline(runtime, 6) == sample


def test_the_oldest_of_a_minute_is_what_rates_are_made_of(runtime: Path) -> None:
    history = StatsHistory(runtime)
    for second in range(300):
        if history.due(second * SECOND):
            history.add(Sample(second * SECOND))
    found = baseline(runtime, 299 * SECOND)
    assert found is not None
    assert 60 <= 299 - found.at_ns // SECOND < 70


def test_a_new_supervisor_goes_on_with_it(runtime: Path) -> None:
    StatsHistory(runtime).add(Sample(1 * SECOND))
    history = StatsHistory(runtime)
    assert not history.due(10 * SECOND)
    history.add(Sample(11 * SECOND))
    found = baseline(runtime, 12 * SECOND)
    assert found is not None
    assert found.at_ns == SECOND


def test_samples_of_an_earlier_boot_are_not_compared_with(runtime: Path) -> None:
    StatsHistory(runtime).add(Sample(900 * SECOND))
    assert baseline(runtime, 5 * SECOND) is None
    history = StatsHistory(runtime)
    assert history.due(5 * SECOND)
    history.add(Sample(5 * SECOND))
    assert not history.due(6 * SECOND)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"7",
        b"[7]",
        b'[{"at_ns":1}]',
        b'[{"at_ns":1,"routes":[1],"cpu":{}}]',
        b'[{"at_ns":1,"routes":[["a",[1]]],"cpu":{}}]',
        b'[{"at_ns":-9223372036854775808,"routes":[],"cpu":{}}]',
        b'[{"at_ns":1,"routes":[],"cpu":{"1":"nan"}}]',
        b'[{"at_ns":1,"routes":[],"cpu":{"1":-1e300}}]',
        b'[{"at_ns":1,"routes":[["a",[%s]]],"cpu":{}}]' % b",".join([b'"999999999999999999999"'] * 128),
    ],
)
def test_what_is_no_history_is_none(runtime: Path, text: bytes) -> None:
    (runtime / DIRECTORY / "history.json").write_bytes(text)
    assert baseline(runtime, 9) is None
    assert StatsHistory(runtime).due(9)


def test_a_directory_that_is_gone_costs_nothing_else(tmp_path: Path) -> None:
    StatsHistory(tmp_path).add(Sample(1))
    assert baseline(tmp_path, 2) is None
