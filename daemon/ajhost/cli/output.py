"""Writes the output of commands: text, JSON and tables to stdout, errors to stderr. Handles a closed or full stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import click

from ajhost.cli import exit_status
from ajhost.protocol.safe_text import clean, printable


class CommandFailed(click.ClickException):
    """An error that ends a command with `exit_code`; the message goes to stderr."""

    def show(self, file: IO[Any] | None = None) -> None:
        echo_error(self.message)


class OutputFailed(CommandFailed):
    """stdout is full, or cannot be written to for another reason."""

    exit_code = exit_status.CANNOT_WRITE


class ReaderGone(OutputFailed):
    """The reader of stdout, a pipe, has closed it, which is no error of the command."""

    exit_code = exit_status.BROKEN_PIPE

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints nothing."""


def write(data: bytes) -> None:
    """Writes bytes to stdout.

    :raises OutputFailed: when it is closed, or full.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        # the interpreter flushes stdout again at its end, and would print the error
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        failure = ReaderGone if isinstance(error, BrokenPipeError) else OutputFailed
        raise failure(f"cannot write: {error.strerror or error}") from None


def echo(text: str) -> None:
    """Writes a line to stdout. See `write` for what is raised."""
    write(text.encode(errors="replace") + b"\n")


def echo_error(text: str) -> None:
    """Writes a line to stderr, without control characters. An error of stderr is ignored."""
    with contextlib.suppress(OSError):
        sys.stderr.write(clean(text) + "\n")
        sys.stderr.flush()


def show_progress(text: str) -> None:
    """Replaces the progress line on stderr, a terminal; an empty text removes it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def to_json(value: object, indent: int | None = None) -> str:
    """Returns JSON, paths as texts. Escapes control, format and bidirectional characters: terminals would obey them."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=os.fspath)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def moment(at: float) -> str:
    """Returns a time (seconds since 1970) as this machine's local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Returns a table in aligned columns, those of integers to the right. The first row is the head."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = [all(isinstance(cell, int) for cell in column[1:]) for column in zip(*rows, strict=True)]
    pads = [str.rjust if right else str.ljust for right in numeric]
    lines = ("  ".join(pad(text, width) for pad, text, width in zip(pads, row, widths, strict=True)) for row in texts)
    return "\n".join(line.rstrip() for line in lines)
