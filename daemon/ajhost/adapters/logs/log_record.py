"""Reads a log record for every output: its text made safe, a long traceback shortened, its level, and the task that it
is about, as its labels (`aj_task` ...). An output that raises fails no task.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from ajhost.protocol.safe_text import clean, one_line


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """The attempt that a record is about. `duration`: seconds since its request was received."""

    id: str
    type: str
    route: str
    tries: int
    duration: float

    def extras(self) -> dict[str, str]:
        """Returns `aj_*` to text, for `extra` of a logging call."""
        return {
            "aj_task": self.id,
            "aj_type": self.type,
            "aj_route": self.route,
            "aj_tries": str(self.tries),
            "aj_duration": f"{self.duration:.6f}",
        }


class Labelled(Protocol):
    """An attempt that can name itself. Its labels are made only when it logs something: most attempts do not."""

    def labels(self) -> TaskLabels:
        """Returns the labels as they are now."""


CURRENT_TASK: ContextVar[Labelled | None] = ContextVar("ajhost_current_task", default=None)
"""Set where a handler runs, so that all that it logs or prints, in its threads too, has the task's labels."""

EXTRAS = (
    "aj_task", "aj_type", "aj_route", "aj_tries", "aj_duration", "aj_outcome", "aj_reason", "aj_count",
    "aj_worker_slot", "aj_worker_pid",
)  # fmt: skip
"""The keys that a logging call may use in `extra`.

`aj_duration` is in seconds. `aj_outcome` is `completed`, `failed`, `terminated` or `refused`, `aj_reason` the word with
which the answer's text begins, `aj_count` how many refusals a record counts. `aj_worker_*` name the worker that had a
task, where another process answered it.
"""

_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
LONGEST = 1 << 16
"""Characters of a traceback at most: an exception's text has any size, and cleaning it would delay heartbeats."""


class RecordHandler(logging.Handler):
    """A handler whose `emit` raises nothing: it is called where a task's handler logs, and would fail the task.

    An application sets a record's attributes as it likes, by `makeLogRecord` or a filter: a name that is no text, a
    time that is no number.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record, or what can be read of it."""
        try:
            self.write(record)
        except Exception:
            self.write(_readable(record))

    def write(self, record: logging.LogRecord) -> None:
        """Writes the record. Raises anything if one of its attributes is not what `logging` makes it."""
        raise NotImplementedError


def _readable(record: Any) -> logging.LogRecord:
    texts = [message_of(record)]
    with contextlib.suppress(Exception):
        texts.append(traceback_of(record))
    level = record.levelno if isinstance(record.levelno, int) else logging.ERROR
    line = record.lineno if isinstance(record.lineno, int) else 0
    place = clean(_shown(record.pathname))
    return logging.LogRecord(clean(_shown(record.name)), level, place, line, "\n".join(filter(None, texts)), None, None)


def _shortened(text: str) -> str:
    """Returns the beginning and the end of a text that is too long: a traceback names the exception at its end."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}\n... {len(text) - LONGEST} characters left out ...\n{text[-LONGEST // 2 :]}"


def level_of(record: logging.LogRecord) -> str:
    """Returns the usual name of a record's level: an application may set other names, with colours in them."""
    return _LEVELS.get(record.levelno) or one_line(record.levelname)


def text_of(record: logging.LogRecord) -> str:
    """Returns the whole text of a record, with its traceback and stack. Raises nothing, whatever was logged."""
    text, trace = message_of(record), traceback_of(record)
    return f"{text}\n{trace}" if trace else text


def message_of(record: logging.LogRecord) -> str:
    """Returns the message of a record. Raises nothing."""
    try:
        text = record.getMessage()
    except Exception as error:
        text = f"{_shown(record.msg)} (its arguments do not fit: {_shown(error)})"
    return clean(text)


def traceback_of(record: logging.LogRecord) -> str:
    """Returns the traceback and the stack of a record, empty if it has none. Raises nothing."""
    parts: list[str] = []
    if record.exc_info and record.exc_info[0] is not None:
        try:
            parts.append("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        except Exception as error:
            kind = record.exc_info[0].__name__
            parts.append(f"(a {kind} whose traceback cannot be shown: {_shown(error)})")
    if record.stack_info:
        parts.append(record.stack_info)
    return clean(_shortened("\n".join(parts)))


def task_labels() -> dict[str, str]:
    """Returns `aj_*` to text, of the task whose handler runs here; empty elsewhere."""
    current = CURRENT_TASK.get()
    return {} if current is None else {name: clean(v) for name, v in current.labels().extras().items()}


def labels_of(record: logging.LogRecord) -> dict[str, str]:
    """Returns `aj_*` to text: the call's `extra`, and what that lacks of the labels of the task that runs here."""
    labels = task_labels()
    given = record.__dict__
    for name in EXTRAS:
        if name in given and given[name] is not None:
            value = given[name]
            labels[name] = f"{value:.6f}" if isinstance(value, float) else clean(_shown(value))
    return labels


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"
