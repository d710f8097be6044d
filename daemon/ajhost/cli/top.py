"""`ajhost top`: the command, its keys, and the thread that reads the host. `top_view.py` makes the lines to show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click
from prompt_toolkit.application import Application
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import FormattedTextControl, Layout, Window
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from ajhost.cli import exit_status
from ajhost.cli.options import Duration, config_option
from ajhost.cli.output import echo_error
from ajhost.cli.running_host import NoHost
from ajhost.cli.status import print_once, reader
from ajhost.cli.top_view import View
from ajhost.core.status_report import StatusReport

_EPILOG = """\b
Examples:
  ajhost top
  ajhost top --interval 0.2
\b
Exit status: 0 when it is ended, 3 nothing runs; without a terminal that of `ajhost status`.
"""
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


@click.command(epilog=_EPILOG)
@config_option
@click.option(
    "--interval",
    type=Duration(0.1, 3600),
    default="1s",
    show_default=True,
    metavar="TIME",
    help="How often it looks.",
)
def top(config: Path, interval: float) -> int:
    """Show what `ajhost status` shows, live; sort and filter it by keys (? names them).

    Without a terminal it shows the same as `ajhost status`, once. The host is read only while it runs.
    """
    read = reader(config)
    first = read()
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        return print_once(first)
    if (terminal := os.environ.get("TERM", "")) in ("", "dumb", "unknown"):
        echo_error(
            f"the terminal ({terminal or 'no TERM'}) cannot move its cursor: shown once, as `ajhost status` does"
        )
        return print_once(first)
    Screen(read, first, interval).run()
    return exit_status.OK


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

        def key(*names: str, during: Condition | None = None) -> Callable[[Callable[[], None]], None]:
            def bind(act: Callable[[], None]) -> None:
                for name in names:
                    keys.add(name, filter=~editing if during is None else during)(lambda event: act())

            return bind

        for name in ("c-c", "<sigint>"):
            keys.add(name)(self._end)
        keys.add("q", filter=~editing)(self._end)
        keys.add("c-z")(lambda event: event.app.suspend_to_background())

        def focus(index: int) -> None:
            view.focus, view.helping = index % 3, False

        key("tab")(lambda: focus(view.focus + 1))
        key("s-tab")(lambda: focus(view.focus - 1))
        key("1")(lambda: focus(0))
        key("2")(lambda: focus(1))
        key("3")(lambda: focus(2))

        @key("enter")
        def _() -> None:
            view.alone = not view.alone

        @key("r")
        def _() -> None:
            view.focused.reverse = not view.focused.reverse

        @key("p", " ")
        def _() -> None:
            view.paused = not view.paused

        @key("?", "h")
        def _() -> None:
            view.helping = not view.helping

        @key("/")
        def _() -> None:
            view.editing, view.helping = True, False

        @key("escape")
        def _() -> None:
            view.helping, view.focused.wanted = False, ""

        key(">", "right")(lambda: view.focused.sort_by(1))
        key("<", "left")(lambda: view.focused.sort_by(-1))
        key("down", "j")(lambda: view.focused.scroll(1))
        key("up", "k")(lambda: view.focused.scroll(-1))
        key("pagedown")(lambda: view.focused.scroll(view.focused.in_sight))
        key("pageup")(lambda: view.focused.scroll(-view.focused.in_sight))
        key("home")(lambda: view.focused.scroll(-view.focused.first))
        key("end")(lambda: view.focused.scroll(1 << 30))

        @key("enter", during=editing)
        def _() -> None:
            view.editing = False

        @key("escape", "c-u", during=editing)
        def _() -> None:
            view.focused.wanted = ""
            view.editing = False

        @key("backspace", during=editing)
        def _() -> None:
            view.focused.wanted = view.focused.wanted[:-1]

        @keys.add(Keys.Any, filter=editing)
        @keys.add(Keys.BracketedPaste, filter=editing)
        def _(event: KeyPressEvent) -> None:
            view.focused.wanted += "".join(c for c in event.data if c.isprintable())

        return keys
