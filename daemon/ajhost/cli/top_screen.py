"""The screen of `ajhost top`: what a key does, the order and the filter of its rows, the columns for which there is
room, and the thread that reads the host. `Table` and `View` make its lines without a terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

from ajhost.cli.running_host import NoHost
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
_FOOT = "q quit  Tab table  Enter alone  < > sort  r reverse  / filter  p pause  ? keys"
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
KEYS = (
    "tab", "s-tab", "1", "2", "3", "enter", "r", "p", " ", "?", "h", "/", "escape", ">", "right", "<", "left",
    "down", "j", "up", "k", "pagedown", "pageup", "home", "end",
)  # fmt: skip
EDITING_KEYS = ("enter", "escape", "c-u", "backspace")
"""The keys while a filter is written."""
_STYLE = Style.from_dict(
    {
        "title": "bold",
        "focused": "bold reverse",
        "column": "underline",
        "sorted": "bold underline",
        "good": "ansigreen",
        "warn": "ansiyellow",
        "bad": "ansired bold",
        "alarm": "ansired bold reverse",
        "keys": "reverse",
    }
)
"""Colours of the terminal's own palette, which fit its background."""
_ESCAPE_WAIT = 0.1
"""Seconds after which an Escape is that key, and not the beginning of another key's sequence."""


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
        self.report, self.problem = report, ""

    def lose(self, problem: str) -> None:
        """Takes note that the host could not be read. The last status stays on the screen."""
        self.lost_at = self.lost_at if self.problem else time.monotonic()
        self.problem = problem

    def press(self, key: str) -> None:
        """Acts on one of `KEYS`."""
        table = self.focused
        match key:
            case "tab":
                self._focus_on(self.focus + 1)
            case "s-tab":
                self._focus_on(self.focus - 1)
            case "1" | "2" | "3":
                self._focus_on(int(key) - 1)
            case "enter":
                self.alone = not self.alone
            case "r":
                table.reverse = not table.reverse
            case "p" | " ":
                self.paused = not self.paused
            case "?" | "h":
                self.helping = not self.helping
            case "/":
                self.editing, self.helping = True, False
            case "escape":
                self.helping, table.wanted = False, ""
            case ">" | "right":
                table.sort_by(1)
            case "<" | "left":
                table.sort_by(-1)
            case "down" | "j":
                table.scroll(1)
            case "up" | "k":
                table.scroll(-1)
            case "pagedown":
                table.scroll(table.in_sight)
            case "pageup":
                table.scroll(-table.in_sight)
            case "home":
                table.scroll(-table.first)
            case "end":
                table.scroll(1 << 30)

    def edit(self, key: str) -> None:
        """Acts on one of `EDITING_KEYS`, or adds a text to the filter."""
        table = self.focused
        match key:
            case "enter":
                self.editing = False
            case "escape" | "c-u":
                table.wanted, self.editing = "", False
            case "backspace":
                table.wanted = table.wanted[:-1]
            case text:
                table.wanted += "".join(c for c in text if c.isprintable())

    def _focus_on(self, index: int) -> None:
        self.focus, self.helping = index % 3, False

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
        return ("[held still] " if self.paused else "") + _FOOT

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


class Screen:
    """The host's status on a terminal. A thread calls `read` every `interval` seconds."""

    def __init__(self, read: Callable[[], StatusReport], first: StatusReport, interval: float) -> None:
        self._read = read
        self._interval = interval
        self._view = View(first)
        self._failure: BaseException | None = None
        self._app: Application[None] = Application(
            Layout(Window(FormattedTextControl(self._text, show_cursor=False), always_hide_cursor=True)),
            style=_STYLE,
            key_bindings=self._keys(),
            full_screen=True,
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else ColorDepth.DEPTH_4_BIT,
        )
        self._app.ttimeoutlen = _ESCAPE_WAIT

    def run(self) -> None:
        """Shows the status until the user ends it by a key or a signal, or the terminal closes."""
        threading.Thread(target=self._look, daemon=True).start()
        with contextlib.suppress(EOFError):
            self._app.run(pre_run=self._on_signals)
        if self._failure is not None:
            raise self._failure

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end)

    def _end(self, event: KeyPressEvent | None = None) -> None:
        if self._app.future is not None and not self._app.future.done():
            self._app.exit()

    def _look(self) -> None:
        pause = threading.Event()  # never set: the thread ends with the process
        try:
            while not pause.wait(self._interval):
                try:
                    report = self._read()
                except NoHost as error:
                    self._view.lose(str(error))
                else:
                    if not self._view.paused:
                        self._view.show(report)
                self._app.invalidate()
        except Exception as error:
            self._failure = error
            with contextlib.suppress(RuntimeError):  # the application has ended meanwhile
                if self._app.loop is not None:
                    self._app.loop.call_soon_threadsafe(self._end)

    def _text(self) -> StyleAndTextTuples:
        columns, rows = reversed(self._app.output.get_size())
        text: StyleAndTextTuples = []
        for index, line in enumerate(self._view.lines(columns, rows)):
            text += [("", "\n")] if index else []
            text += line
        return text

    def _keys(self) -> KeyBindings:
        keys, view = KeyBindings(), self._view
        editing = Condition(lambda: view.editing)
        for name in ("c-c", "<sigint>"):
            keys.add(name)(self._end)
        keys.add("q", filter=~editing)(self._end)
        keys.add("c-z")(lambda event: event.app.suspend_to_background())
        for name in KEYS:
            keys.add(name, filter=~editing)(lambda event, name=name: view.press(name))
        for name in EDITING_KEYS:
            keys.add(name, filter=editing)(lambda event, name=name: view.edit(name))
        for any_other in (Keys.Any, Keys.BracketedPaste):
            keys.add(any_other, filter=editing)(lambda event: view.edit(event.data))
        return keys
