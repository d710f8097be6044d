"""Sends log records to journald under systemd, else to stderr as readable lines, or always to stderr as JSON. Decides
the form of both (colours, names in the JSON); that in journald: `adapters/systemd/journald.py`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Any, TextIO
from zoneinfo import ZoneInfo

import orjson

from ajhost.adapters.linux.standard_streams import has_own_stderr, own_stderr
from ajhost.adapters.logs import log_routing
from ajhost.adapters.logs.log_record import RecordHandler, labels_of, level_of, message_of, text_of, traceback_of
from ajhost.adapters.logs.prints import keep_streams, redirect_prints
from ajhost.adapters.systemd.journald import Journal, JournalHandler, bound_stdio, is_attached
from ajhost.protocol.safe_text import one_line
from ajhost.settings.sections import LogSettings

_NUMBERS = frozenset(("aj_tries", "aj_count", "aj_worker_slot", "aj_worker_pid"))
_LEVELS = {2: "critical", 3: "error", 4: "warning", 5: "info", 6: "info", 7: "debug"}
"""Level names of syslog(3)'s priorities."""
_COLOURS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31", logging.DEBUG: "2"}


def _zone() -> tzinfo | None:
    """Returns the time zone of TZ, or of the machine; None if TZ has another form, which only the C library reads."""
    try:
        if name := os.environ.get("TZ"):
            return ZoneInfo(name.lstrip(":"))
        with open("/etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):
        return None


_ZONE = _zone()
"""Read before the application's imports, which may set another one for their process, as Django does: all lines of a
host have the same clock.
"""


class LineHandler(RecordHandler):
    """`2026-01-31 12:00:00.123 INFO    worker 2: text [email:new 2aXw...]`, coloured by level on a terminal.

    Further lines of a text are indented, so that none can pass for a record of its own.
    """

    def __init__(self, stream: TextIO | None, who: str) -> None:
        """`stream` is None if there is none: a process may be started with stderr closed."""
        super().__init__()
        self._stream = stream
        self._who = who
        self._coloured = (
            stream is not None
            and stream.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    def write(self, record: logging.LogRecord) -> None:
        """Writes the record. If stderr is gone, the line is lost."""
        if self._stream is None:
            return
        moment = datetime.fromtimestamp(record.created, _ZONE).strftime("%Y-%m-%d %H:%M:%S")
        level = f"{level_of(record):<7}"
        if self._coloured and record.levelno in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelno]}m{level}\x1b[0m"
        first, *further = text_of(record).split("\n")
        labels = labels_of(record)
        about = " ".join(filter(None, (labels.get("aj_type"), labels.get("aj_task"))))
        where = f" [{one_line(about)}]" if about else ""
        lines = [f"{moment}.{int(record.msecs):03d} {level} {self._who}: {first}{where}"]
        lines += [f"    {line}" for line in further]
        with contextlib.suppress(OSError, ValueError):
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()


class JsonHandler(RecordHandler):
    """`[log] format = "json"`: writes each record, and each line that a handler prints, as one JSON object to stderr.

    The names are stable: time (UTC, RFC 3339), level, role, pid, message; slot and generation of a worker; logger, file
    and line of a record, its traceback; stream of a printed line; of the task: task, type, route, tries, duration, and
    of its end: outcome, reason, count. Each object has the members of `constant`.
    """

    def __init__(self, constant: Mapping[str, Any]) -> None:
        super().__init__()
        self._constant = dict(constant)
        self._output = own_stderr()

    def write(self, record: logging.LogRecord) -> None:
        values: dict[str, Any] = {
            "level": level_of(record).lower(),
            "logger": record.name,
            "message": message_of(record),
            "file": record.pathname,
            "line": record.lineno,
        }
        if trace := traceback_of(record):
            values["traceback"] = trace
        self._put(values, labels_of(record), record.created)

    def print_line(self, stream: str, text: str, priority: int, labels: Mapping[str, str]) -> None:
        values = {"level": _LEVELS.get(priority, "info"), "message": text, "stream": stream}
        self._put(values, labels, time.time())

    def _put(self, values: Mapping[str, Any], labels: Mapping[str, str], moment: float) -> None:
        """Writes one object. If stderr is gone, the object is lost."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        told = {"time": f"{stamp}.{int(moment * 1000) % 1000:03d}Z", **values, **self._constant, "pid": os.getpid()}
        told |= {name.removeprefix("aj_"): _value(name, text) for name, text in labels.items()}
        data = orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
        if self._output is None:
            return
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._output, data) :]


def _value(name: str, text: str) -> object:
    try:
        if name in _NUMBERS:
            return int(text)
        return float(text) if name == "aj_duration" else text
    except ValueError:
        return text


def configure(log: LogSettings, role: str, slot: int | None = None, generation: int | None = None) -> None:
    """Sends all records of this process, those of libraries and `warnings` included, to the journal or to stderr.

    To be called again in each process after a fork. `role` is `supervisor`, `template` or `worker`. What an application
    configures stays, see `log_routing.py`. Raises ValueError for an unknown level.
    """
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    if role != "supervisor":  # the supervisor imports no handlers
        keep_streams()
    handler: LineHandler | JsonHandler | JournalHandler
    if log.format == "json":
        constant = {"role": role, "slot": slot, "generation": generation}
        handler = JsonHandler({name: value for name, value in constant.items() if value is not None})
    elif is_attached():
        bound_stdio()
        who = identifier(role, slot)
        fields = {"SYSLOG_IDENTIFIER": who, "AJ_ROLE": role, "AJ_SLOT": slot, "AJ_GENERATION": generation}
        handler = JournalHandler(Journal({name: str(value) for name, value in fields.items() if value is not None}))
    else:
        handler = LineHandler(_stderr(), role if slot is None else f"{role} {slot}")
    if role != "supervisor" and not isinstance(handler, LineHandler):
        redirect_prints(handler.print_line)
    log_routing.install(handler, log.level, log.levels)


def _stderr() -> TextIO | None:
    """Returns a stderr that only the host uses.

    A stream that replaced `sys.stderr` before the first call is used: it is a test's. One that imports of handlers have
    put there later is not: it may buffer the lines, or log them, which would call the host's handler again.
    """
    replaced = sys.stderr is None or sys.stderr is not sys.__stderr__
    if (replaced and not has_own_stderr()) or (descriptor := own_stderr()) is None:
        return sys.stderr
    return _stream(descriptor)


@functools.cache
def _stream(descriptor: int) -> TextIO:
    """Opens one stream for the process and its forks. The handler flushes it after each record."""
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def report_lost() -> None:
    """Logs how many records were dropped while journald hung. To be called a few times a second."""
    for handler in (log_routing.current(), *logging.getLogger().handlers):
        if isinstance(handler, JournalHandler):
            handler.journal.report_lost()


def identifier(role: str, slot: int | None) -> str:
    """Returns a process's name in the journal: `ajhost`, `ajhost-template`, `ajhost-worker-2`."""
    if role == "supervisor":
        return "ajhost"
    return f"ajhost-{role}" if slot is None else f"ajhost-{role}-{slot}"
