"""Files of statistics between real processes: a kill loses nothing that was counted, and no file is left unused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ajhost.adapters.linux.stats_files import StatsFile, read_all

COUNT = """
import os, sys, signal
from pathlib import Path
from ajhost.adapters.linux.stats_files import StatsFile
writer = StatsFile(Path(sys.argv[1])).writer(("a", "b"))
for _ in range(int(sys.argv[2])):
    writer.refused(0, "draining")
print("counted", flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


@contextmanager
def counting(directory: Path, count: int, then: str = "stay") -> Iterator[subprocess.Popen[str]]:
    """A process that has counted."""
    with subprocess.Popen(
        [sys.executable, "-c", COUNT, str(directory), str(count), then],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        yield process


def received(directory: Path) -> dict[str | None, int]:
    return {route: stats.answered for route, stats in read_all(directory).items() if stats.answered}


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_a_killed_process_counted_is_there_and_the_next_one_goes_on_with_its_file(
    tmp_path: Path,
) -> None:
    for number in range(1, 4):
        with counting(tmp_path / "stats", 5, "kill") as process:
            assert process.wait() == -signal.SIGKILL
        assert received(tmp_path / "stats") == {"a": 5 * number}
    assert files(tmp_path / "stats") == ["0.stats"]


def test_processes_side_by_side_have_a_file_each(tmp_path: Path) -> None:
    with counting(tmp_path, 1), counting(tmp_path, 2), counting(tmp_path, 3):
        assert received(tmp_path) == {"a": 6}
        assert files(tmp_path) == ["0.stats", "1.stats", "2.stats"]
    with counting(tmp_path, 4):
        assert received(tmp_path) == {"a": 10}
        assert len(files(tmp_path)) == 3


def test_reading_all_files_does_not_give_up_the_reader_s_own(tmp_path: Path) -> None:
    StatsFile(tmp_path).writer(("a",)).refused(0, "draining")
    assert received(tmp_path) == {"a": 1}
    with counting(tmp_path, 1):
        assert files(tmp_path) == ["0.stats", "1.stats"]


def test_a_file_grows_with_the_routes_of_a_reload(tmp_path: Path) -> None:
    with counting(tmp_path, 7):
        pass
    routes = tuple(f"route:{number}" for number in range(200))
    writer = StatsFile(tmp_path).writer(routes)
    writer.refused(199, "draining")
    assert received(tmp_path) == {"a": 7, "route:199": 1}
    assert files(tmp_path) == ["0.stats"]


def test_a_process_goes_on_with_its_own_file_when_its_routes_change(tmp_path: Path) -> None:
    file = StatsFile(tmp_path)
    file.writer(("a",)).refused(0, "draining")
    file.writer([*(f"route:{number}" for number in range(50)), "a"]).refused(50, "draining")
    assert received(tmp_path) == {"a": 2}
    assert files(tmp_path) == ["0.stats"]


def test_a_file_that_is_none_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "0.stats").write_bytes(b"x" * 10_001)
    (tmp_path / "1.stats").write_bytes(b"x")
    assert read_all(tmp_path) == {}
    StatsFile(tmp_path).writer(("a",)).refused(0, "draining")
    assert received(tmp_path) == {"a": 1}


def test_a_directory_that_cannot_be_had_costs_the_counts_only(tmp_path: Path) -> None:
    (tmp_path / "stats").write_text("no directory")
    StatsFile(tmp_path / "stats").writer(("a",)).refused(0, "draining")


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "else").write_bytes(b"")
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "0.stats").symlink_to(tmp_path / "else")
    StatsFile(tmp_path / "stats").writer(("a",)).refused(0, "draining")
    assert (tmp_path / "else").read_bytes() == b""
    os.mkfifo(tmp_path / "stats" / "1.stats")
    (tmp_path / "stats" / "0.stats").unlink()
    assert read_all(tmp_path / "stats") == {}


def test_without_a_directory_nothing_was_counted(tmp_path: Path) -> None:
    assert read_all(tmp_path / "missing") == {}
