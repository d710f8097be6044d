"""The screens of `ajhost top` for terminals of every size."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prompt_toolkit.utils import get_cwidth

from ajhost.cli.status import TASKS
from ajhost.cli.top_screen import View, fit
from ajhost.core.status_report import TaskStatus
from tests.support.large_status import large_report

REPORT = large_report()


def screen(view: View, width: int, height: int) -> list[str]:
    return ["".join(text for _, text in line) for line in view.lines(width, height)]


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 100, 132, 300])
@pytest.mark.parametrize("height", [2, 5, 10, 24, 60, 400])
def test_a_screen_has_its_size_whatever_there_is_to_show(width: int, height: int) -> None:
    view = View(REPORT)
    for view.alone in (False, True):
        for view.focus in range(3):
            for view.helping in (True, False):
                lines = screen(view, width, height)
                assert len(lines) == height
                tables = [line for line in lines if not re.match(r"(ajhost|supervisor) ", line)]
                assert all(get_cwidth(line) <= max(width, 47) for line in tables), "47: the columns that always stay"


def test_of_64_workers_and_200_routes_each_table_has_its_share_of_24_lines() -> None:
    lines = screen(View(REPORT), 80, 24)
    assert lines[2].startswith("58 of 64 slots serve; ")
    titles = {line.partition(" (")[0]: line for line in lines if ", rows " in line}
    assert titles["Workers"].startswith("Workers (64, rows 1 to 6) by STATE")
    first = lines.index(titles["Workers"]) + 2
    assert not [line for line in lines[first : first + 6] if "serving" in line], "those in trouble come first"
    assert titles["Routes"].startswith("Routes (200, rows 1 to 4) by PER S")
    assert titles["Running tasks"].startswith("Running tasks (96, rows 1 to 4) by FOR")


def test_no_screen_ends_before_its_rows() -> None:
    view = View(REPORT, focus=1)
    view.focused.scroll(1 << 30)
    lines = screen(view, 80, 24)
    assert any("rows 195 to 200" in line for line in lines)
    view.focused.wanted = "billing"
    assert any('(20 of 200 with "billing", rows 15 to 20)' in line for line in screen(view, 80, 24))


def test_an_id_that_would_drive_a_terminal_is_shown_as_text() -> None:
    evil = TaskStatus("x\x1b[2Jy", "t", "t", "running", 1.0, "2026-01-01T00:00:00Z")
    report = replace(REPORT, workers=(replace(REPORT.workers[0], tasks=(evil,)),))
    lines = screen(View(report, focus=2), 80, 24)
    assert not any("\x1b" in line for line in lines)
    assert any("x?[2Jy" in line for line in lines)


@pytest.mark.parametrize(("text", "right", "shown"), [
    ("abc", False, "abc  "), ("abc", True, "  abc"), ("abcdef", False, "abcd~"), ("日本語", False, "日本~"),
    ("a日本語", False, "a日~ "),
])  # fmt: skip
def test_a_text_takes_exactly_its_cells(text: str, right: bool, shown: str) -> None:
    assert fit(text, 5, right=right) == shown
    assert get_cwidth(fit(text, 5, right=right)) == 5


def test_names_that_begin_alike_are_told_apart_where_they_are_cut() -> None:
    assert fit("orders:import:new", 9, middle=True) == "orde~:new"
    assert [fit("abcdef", width, middle=True) for width in range(4)] == ["", "~", "a~", "a~f"]
    routes = tuple(replace(REPORT.routes[0], route=f"{'area:' * 8}{number:03d}") for number in range(9))
    lines = screen(View(replace(REPORT, routes=routes), focus=1, alone=True), 60, 24)
    assert all(any(f"{number:03d} " in line for line in lines) for number in range(9))


def test_a_low_screen_keeps_room_for_tables_however_much_there_is_to_say_of_the_host() -> None:
    supervisor = replace(
        REPORT.supervisor, last_death="worker 1 died", last_replaced="worker 2: too large", drain_by="user 0"
    )
    for height, lines in ((8, 3), (12, 3), (24, 6)):
        shown = screen(View(replace(REPORT, supervisor=supervisor)), 80, height)
        assert next(number for number, line in enumerate(shown) if line.startswith("Workers")) == lines


def test_the_id_of_a_task_is_never_cut_since_commands_ask_for_it() -> None:
    view = View(REPORT, focus=2, alone=True)
    ids = {task.id for worker in REPORT.workers for task in worker.tasks}
    assert ids <= {word for line in screen(view, 60, 200) for word in line.split()}
    assert next(column for column in TASKS if column.title == "TASK").free is False
