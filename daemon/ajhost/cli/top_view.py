"""Makes the lines of `ajhost top`: the tables of a status, sorted, filtered, cut to a size. Writes to no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompt_toolkit.utils import get_cwidth

from ajhost.cli.status import ROUTES, TASKS, WORKERS, Column, head, running_tasks
from ajhost.core.status_report import StatusReport
from ajhost.protocol.safe_text import printable

Fragment = tuple[str, str]
"""A style and a text."""
Line = list[Fragment]
_LEAST_HEAD = 3
"""Lines about the whole host on the lowest screens; on others they take a quarter of the screen at most."""
_NARROWEST = 16
"""Cells that a column of free text keeps; other columns are left out before it gets fewer."""
_KEYS = "q quit  Tab table  Enter alone  < > sort  r reverse  / filter  p pause  ? keys"
_HELP = """\
Tab, 1 2 3       another table: its rows move, its keys count
Enter            this table alone, or all of them
< > (left right) sort by another column
r                the other way round
/                show only rows with a text; Enter keeps it, Esc removes it
up down, PgUp PgDn, Home End
                 move the rows
p, space         hold the picture still
q, Ctrl-C        end

Rates and quantiles are of the last minute."""


@dataclass(slots=True)
class Table:
    """A table, its order, its filter and its scrolling. `by`: index of the sort column; `first`: first visible row."""

    name: str
    columns: Sequence[Column]
    by: int
    reverse: bool = False
    wanted: str = ""
    first: int = 0
    in_sight: int = 0

    def rows(self, every: Sequence[Any]) -> list[tuple[Any, list[str]]]:
        """Returns the rows that pass the filter, with their texts, sorted. Equal rows keep the order of the status."""
        wanted = self.wanted.lower()
        found = [(row, [printable(str(column.cell(row))) for column in self.columns]) for row in every]
        if wanted:
            found = [each for each in found if any(wanted in text.lower() for text in each[1])]
        column = self.columns[self.by]
        key = column.key or column.cell
        largest_first = column.number and column.title != "SLOT"
        return sorted(found, key=lambda each: key(each[0]), reverse=largest_first != self.reverse)

    def sort_by(self, step: int) -> None:
        """Sorts by the column `step` places to the right of the present one."""
        self.by, self.reverse = (self.by + step) % len(self.columns), False

    def scroll(self, by: int) -> None:
        """Moves the rows by `by`; `draw` limits the move to the existing rows."""
        self.first = max(self.first + by, 0)

    def draw(self, every: Sequence[Any], width: int, height: int, focused: bool) -> Iterator[Line]:
        """Yields the lines of the table: its title, the columns' titles, and as many rows as fit."""
        rows = self.rows(every)
        self.in_sight = max(height - 2, 1)
        self.first = max(min(self.first, len(rows) - self.in_sight), 0)
        shown = rows[self.first : self.first + self.in_sight]
        yield [("class:focused" if focused else "class:title", fit(self._title(len(rows), len(every)), width))]
        if not rows:
            yield [("", "none" if not every else "no row has that text")]
            return
        widths = _widths(self.columns, [texts for _, texts in rows], width)
        yield self._line(widths, [column.title for column in self.columns], None)
        for row, texts in shown:
            yield self._line(widths, texts, row)

    def _title(self, found: int, every: int) -> str:
        count = f"{every}" if found == every else f"{found} of {every}"
        what = "" if not self.wanted else f' with "{printable(self.wanted)}"'
        rows = f", rows {self.first + 1} to {min(self.first + self.in_sight, found)}" if found > self.in_sight else ""
        order = ", the other way round" if self.reverse else ""
        return f"{self.name} ({count}{what}{rows}) by {self.columns[self.by].title}{order}"

    def _line(self, widths: Sequence[int], texts: Sequence[str], row: Any) -> Line:
        line: Line = []
        for index, (column, width, text) in enumerate(zip(self.columns, widths, texts, strict=True)):
            if not width:
                continue
            style = column.style(row) if row is not None else "class:sorted" if index == self.by else "class:column"
            padded = fit(text, width, right=column.number, middle=column.name)
            line += [("", "  ")] if line else []
            line.append((style, padded))
        return line


def fit(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """Returns the text in exactly `width` cells of a terminal; `~` marks a cut, at its end or in the `middle`."""
    cells = get_cwidth(text)
    if cells > width:
        end = ""
        while middle and get_cwidth(longer := text[len(text) - len(end) - 1 :]) <= (width - 1) // 2:
            end = longer
        while text and get_cwidth(text) + get_cwidth(end) > width - 1:
            text = text[:-1]
        text += f"~{end}" if width else ""
        cells = get_cwidth(text)
    return " " * (width - cells) + text if right else text + " " * (width - cells)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Returns how many cells each column has; 0: the column is left out."""
    needed = [
        max(get_cwidth(column.title), *(get_cwidth(text) for text in texts))
        for column, texts in zip(columns, zip(*rows, strict=True), strict=True)
    ]
    least = [min(cells, _NARROWEST) if column.free else cells for column, cells in zip(columns, needed, strict=True)]
    for rank in sorted({column.rank for column in columns if column.rank}, reverse=True):
        if sum(least) + 2 * (sum(map(bool, least)) - 1) <= width:
            break
        least = [0 if column.rank == rank else cells for column, cells in zip(columns, least, strict=True)]
    room = width - sum(least) - 2 * (sum(map(bool, least)) - 1)
    for index, column in enumerate(columns):
        if column.free and least[index]:
            more = min(max(room, 0), needed[index] - least[index])
            least[index] += more
            room -= more
    return least


@dataclass(slots=True)
class View:
    """The content of the screen. `problem`: why reading the host has failed since `lost_at` (monotonic seconds)."""

    report: StatusReport | None = None
    problem: str = ""
    lost_at: float = 0.0
    workers: Table = field(default_factory=lambda: Table("Workers", WORKERS, 3))
    routes: Table = field(default_factory=lambda: Table("Routes", ROUTES, 3))
    tasks: Table = field(default_factory=lambda: Table("Running tasks", [c for c in TASKS if c.live], 5))
    focus: int = 0
    alone: bool = False
    paused: bool = False
    editing: bool = False
    helping: bool = False

    @property
    def tables(self) -> tuple[Table, Table, Table]:
        """The tables in the order of the screen."""
        return self.workers, self.routes, self.tasks

    @property
    def focused(self) -> Table:
        """The table that the keys act on."""
        return self.tables[self.focus]

    def show(self, report: StatusReport) -> None:
        """Takes a new status of the host."""
        self.report, self.problem = report, ""

    def lose(self, problem: str) -> None:
        """Takes note that the host could not be read. The last status stays on the screen."""
        self.lost_at = self.lost_at if self.problem else time.monotonic()
        self.problem = problem

    def lines(self, width: int, height: int) -> list[Line]:
        """Returns the screen: exactly `height` lines of at most `width` cells."""
        lines = list(self._head(width))
        if self.report is not None:
            del lines[max(_LEAST_HEAD, height // 4) :]  # the rest is for the tables
        if self.helping:
            lines += [[("", fit(line, width))] for line in _HELP.splitlines()]
        elif self.report is not None:
            lines += self._body(self.report, width, height - len(lines) - 1)
        del lines[height - 1 :]
        lines += [[("", "")] for _ in range(height - 1 - len(lines))]
        return [*lines, [("class:keys", fit(self._foot(), width))]]

    def _foot(self) -> str:
        if self.editing:
            return f"{self.focused.name} with: {printable(self.focused.wanted)}_   (Enter keeps it, Esc removes it)"
        return ("[held still] " if self.paused else "") + _KEYS

    def _head(self, width: int) -> Iterator[Line]:
        if self.problem:
            since = f"; for {time.monotonic() - self.lost_at:.0f} s" if self.report is not None else ""
            yield [("class:alarm", fit(f"{printable(self.problem)}{since}", width))]
        if self.report is not None:
            good = self.report.complete and self.report.supervisor.ready
            for index, line in enumerate(head(self.report)):
                style = ("class:good" if good else "class:bad") if index else "class:title"
                yield [(style, fit(printable(line), width).rstrip())]

    def _body(self, report: StatusReport, width: int, height: int) -> Iterator[Line]:
        every: tuple[Sequence[Any], ...] = (report.workers, report.routes, running_tasks(report))
        if self.alone:
            yield from self.focused.draw(every[self.focus], width, height, True)
            return
        for index, (table, rows, lines) in enumerate(
            zip(self.tables, every, self._heights(every, height), strict=True)
        ):
            if lines > 1:
                drawn = list(table.draw(rows, width, lines, index == self.focus))
                yield from drawn[:lines]

    def _heights(self, every: Sequence[Sequence[Any]], height: int) -> list[int]:
        """Returns each table's lines: as many as it needs, up to a third. The focused table gets the rest first."""
        needed = [len(rows) + 2 if rows else 2 for rows in every]
        given = [min(need, height // 3) for need in needed]
        for index in sorted(range(3), key=lambda index: index != self.focus):
            given[index] += min(needed[index] - given[index], height - sum(given))
        return given
