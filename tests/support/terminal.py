"""A command of `ajhost` on a terminal of its own, whose screen a test reads."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pyte

from tests.support import forked_commands

T = TypeVar("T")
Screen = list[str]
"""The lines of a screen, without the blanks at their ends."""


class Terminal:
    """A terminal of `columns` x `rows` with a program, which is killed at the end of the block if it runs on."""

    def __init__(self, *command: str, env: Mapping[str, str], columns: int = 80, rows: int = 24) -> None:
        self._command = command
        self._env = dict(env)
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Event()
        self.written = b""
        """All that the program has written."""

    async def __aenter__(self) -> Self:
        self._fd, theirs = pty.openpty()
        self._set_size()
        self.settings = termios.tcgetattr(theirs)
        os.set_blocking(self._fd, False)
        try:
            process = await forked_commands.start(
                self._command, env=self._env, directory=Path.cwd(), output=theirs, terminal=True
            )
            assert process is not None, f"{self._command} wants an interpreter of its own"
            self._process = process
        finally:
            self._theirs = theirs
        asyncio.get_running_loop().add_reader(self._fd, self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        os.close(self._fd)
        os.close(self._theirs)
        if error is not None:
            error.add_note("the screen:\n" + "\n".join(self.screen))

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            data = os.read(self._fd, 1 << 16)
            self.written += data
            self._stream.feed(data)
            self._changed.set()

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self._screen.lines, self._screen.columns, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    @property
    def screen(self) -> Screen:
        """What is to be seen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def cells(self) -> list[list[Any]]:
        """The characters with their colours, row by row: pyte's `Char`."""
        return [[self._screen.buffer[y][x] for x in range(self._screen.columns)] for y in range(self._screen.lines)]

    @property
    def cursor_hidden(self) -> bool:
        """Whether the program has left the cursor hidden."""
        return bool(self._screen.cursor.hidden)

    def resize(self, columns: int, rows: int) -> None:
        """The window has another size; the program is told."""
        self._screen.resize(rows, columns)
        self._set_size()

    def type(self, keys: str) -> None:
        """Somebody presses keys."""
        os.write(self._fd, keys.encode())

    def send_signal(self, number: signal.Signals) -> None:
        """A signal to the program."""
        os.kill(self._process.pid, number)

    async def until(self, shows: Callable[[Screen], bool], timeout: float = 60.0) -> Screen:
        """Returns the screen when it fits. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not shows(self.screen):
                self._changed.clear()
                await self._changed.wait()
        return self.screen

    async def shows(self, text: str, timeout: float = 60.0) -> Screen:
        """Returns the screen when some line has `text`."""
        return await self.until(lambda screen: any(text in line for line in screen), timeout)

    async def reads(self, read: Callable[[Screen], T], wanted: T, timeout: float = 60.0) -> None:
        """Returns when `read` finds `wanted` on the screen, of which one look may see a half. Raises AssertionError."""
        with contextlib.suppress(TimeoutError):
            await self.until(lambda screen: read(screen) == wanted, timeout)
        assert read(self.screen) == wanted

    async def ended(self, timeout: float = 30.0) -> int:
        """The program's exit status, when it has ended by itself and all that it wrote is on the screen."""
        async with asyncio.timeout(timeout):
            status = await self._process.wait()
        self._receive()
        return status

    @property
    def settings_now(self) -> list[Any]:
        """The terminal's modes (termios) as they are now; `settings` are those of the beginning."""
        return termios.tcgetattr(self._theirs)
