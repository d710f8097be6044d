"""The output of a process as lines with their times, and waiting for one of them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

Wanted = str | Callable[[str], bool]
"""A part of a line, or a question about it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line and when it came (monotonic seconds)."""

    at: float
    text: str


class Log:
    """Lines that are read from a stream until its end, by a task of their own."""

    def __init__(self, stream: asyncio.StreamReader, transport: asyncio.BaseTransport | None = None) -> None:
        self.lines: list[Line] = []
        self._transport = transport
        self._waiting: list[tuple[Callable[[str], bool], asyncio.Future[Line]]] = []
        self._reader = asyncio.create_task(self._read(stream))

    @classmethod
    async def of_pipe(cls, read_end: int) -> Self:
        """The lines that come through a pipe, whose read end it takes over."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb")
        )
        return cls(stream, transport)

    async def _read(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._add(line)
        if rest:
            self._add(rest)

    def _add(self, raw: bytes) -> None:
        line = Line(time.monotonic(), raw.decode(errors="replace"))
        self.lines.append(line)
        for wanted, future in self._waiting[:]:
            if not future.done() and wanted(line.text):
                future.set_result(line)

    def text(self) -> str:
        """All of it."""
        return "\n".join(line.text for line in self.lines)

    def having(self, part: Wanted) -> list[Line]:
        """The lines with `part` so far."""
        wanted = _question(part)
        return [line for line in self.lines if wanted(line.text)]

    async def next(self, part: Wanted, *, since: int = 0, timeout: float = 60.0) -> Line:
        """The first line with `part`, of those after the first `since` lines. Raises TimeoutError with the log."""
        wanted = _question(part)
        for line in self.lines[since:]:
            if wanted(line.text):
                return line
        found: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter := (wanted, found))
        try:
            async with asyncio.timeout(timeout):
                return await found
        except TimeoutError as error:
            error.add_note(f"no line with {part!r} within {timeout} s in:\n{self.text()}")
            raise
        finally:
            self._waiting.remove(waiter)

    async def ended(self, timeout: float = 30.0) -> None:
        """Returns when nobody can write to it any more. Raises TimeoutError while a process still holds it."""
        async with asyncio.timeout(timeout):
            await asyncio.shield(self._reader)

    async def close(self) -> None:
        """Stops reading."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()


def _question(part: Wanted) -> Callable[[str], bool]:
    if callable(part):
        return part
    return lambda line: part in line
