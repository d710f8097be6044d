"""Makes each line that handlers print to `sys.stdout` or `sys.stderr` a record with its task's labels, and a priority:
by the stream, by a prefix like `<3>`, or that of the record that a logging handler writes there. The two streams stay
open, since all tasks of a worker print to them.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from ajhost.adapters.logs.log_record import task_labels
from ajhost.adapters.logs.log_routing import WRITTEN_LEVEL
from ajhost.protocol.safe_text import clean

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LINE_MAX = 48 << 10
"""Bytes after which an unfinished line is sent; the default of journald.conf's LineMax=."""
_LEVEL_PREFIX = re.compile(r"<([0-7])>")


class Priority(IntEnum):
    """Priorities of syslog(3)."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


def priority_of(level: int) -> Priority:
    """Returns the priority of a level of `logging`."""
    if level >= logging.CRITICAL:
        return Priority.CRITICAL
    if level >= logging.ERROR:
        return Priority.ERROR
    if level >= logging.WARNING:
        return Priority.WARNING
    if level > logging.INFO:
        return Priority.NOTICE
    return Priority.INFO if level == logging.INFO else Priority.DEBUG


Sink = Callable[[str, str, int, Mapping[str, str]], None]
"""Called for each printed line with `stdout` or `stderr`, the text, the syslog priority, and the labels of the task."""


class _Lines(io.RawIOBase):
    """The raw stream under `sys.stdout` or `sys.stderr`: calls a sink for each line.

    A line that a logging handler writes has the priority of its record. `fileno` is the descriptor of the original
    stream, which children and C code write to.
    """

    def __init__(self, sink: Sink, name: str, fd: int, priority: Priority) -> None:
        self._sink = sink
        self._name = name
        self._fd = fd
        self._priority = priority
        self._rest = b""

    def redirect(self, sink: Sink) -> None:
        """Replaces the sink, and drops an unfinished line: after a fork, parent and child would both send it."""
        self._sink = sink
        self._rest = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: ReadableBuffer, /) -> int:
        new = bytes(data)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) > _LINE_MAX:
            self._emit(self._rest[:_LINE_MAX])
            self._rest = self._rest[_LINE_MAX:]
        return len(new)

    def _emit(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        level = WRITTEN_LEVEL.get()
        priority = int(self._priority if level is None else priority_of(level))
        if prefix := _LEVEL_PREFIX.match(text):  # sd-daemon(3)
            priority, text = int(prefix[1]), text[prefix.end() :]
        if text:
            self._sink(self._name, clean(text), priority, task_labels())


class _KeptBuffer(io.BufferedWriter):
    """The buffer of a stream that stays open.

    `sys.stdout = io.TextIOWrapper(sys.stdout.buffer)` would close it the second time, when the first wrapper is freed.
    """

    def close(self) -> None:
        self.flush()


class _KeptStream(io.TextIOWrapper):
    """A stream that stays open: `with (open(path) if path else sys.stdout) as file:` is a common mistake."""

    def close(self) -> None:
        self.flush()


def redirect_prints(sink: Sink) -> None:
    """Makes `sys.stdout` and `sys.stderr` call a sink for each line.

    Called again after a fork, it keeps the two stream objects, which modules may have stored, and replaces their sink.
    """
    for name, fd, priority in (("stdout", 1, Priority.INFO), ("stderr", 2, Priority.WARNING)):
        present = getattr(getattr(getattr(sys, name), "buffer", None), "raw", None)
        if isinstance(present, _Lines):
            present.redirect(sink)
            continue
        lines = _KeptBuffer(_Lines(sink, name, fd, priority))
        text = _KeptStream(lines, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, text)


def keep_streams() -> None:
    """Makes the streams that the interpreter has opened stay open. Leaves streams that have replaced them alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper or stream is not getattr(sys, f"__{name}__"):
            continue
        encoding, errors, line_buffering = stream.encoding, stream.errors, stream.line_buffering
        buffer = stream.detach()
        raw = buffer.detach() if isinstance(buffer, io.BufferedWriter) else buffer  # with PYTHONUNBUFFERED
        kept = _KeptStream(_KeptBuffer(raw), encoding, errors, line_buffering=line_buffering)
        setattr(sys, name, kept)
        setattr(sys, f"__{name}__", kept)
