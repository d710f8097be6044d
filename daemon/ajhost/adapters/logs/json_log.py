"""`[log] format = "json"`: each record, and each line that a handler prints, as one JSON object on stderr.

The names are stable: time (UTC, RFC 3339), level, role, pid, message; slot and generation of a worker; logger, file and
line of a record, its traceback; stream of a printed line; of the task: task, type, route, tries, duration,
and of its end: outcome, reason, count.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import orjson

from ajhost.adapters.linux.standard_streams import own_stderr
from ajhost.adapters.logs.log_record import RecordHandler, labels_of, level_of, message_of, task_labels, traceback_of

_NUMBERS = frozenset(("aj_tries", "aj_count", "aj_worker_slot", "aj_worker_pid"))
_LEVELS = {2: "critical", 3: "error", 4: "warning", 5: "info", 6: "info", 7: "debug"}
"""Level names of syslog(3)'s priorities."""


class JsonLines:
    """Writes objects to stderr, one per line, by a descriptor of the host's own. Each has the members of `constant`."""

    def __init__(self, constant: Mapping[str, Any]) -> None:
        self._constant = dict(constant)
        self._output = own_stderr()

    def write(self, values: Mapping[str, Any], labels: Mapping[str, str], moment: float | None = None) -> None:
        """Writes one object. If stderr is gone, the object is lost."""
        now = time.time() if moment is None else moment
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        told = {
            "time": f"{stamp}.{int(now * 1000) % 1000:03d}Z",
            **values,
            **self._constant,
            "pid": os.getpid(),
        }
        told |= {name.removeprefix("aj_"): _value(name, text) for name, text in labels.items()}
        data = orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
        if self._output is None:
            return
        try:
            while data:
                data = data[os.write(self._output, data) :]
        except OSError:
            pass

    def line(self, stream: str, text: str, priority: int) -> None:
        """Writes a printed line."""
        self.write({"level": _LEVELS.get(priority, "info"), "message": text, "stream": stream}, task_labels())


class JsonHandler(RecordHandler):
    """Log records as JSON objects."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__()
        self._lines = lines

    def write(self, record: logging.LogRecord) -> None:
        """Writes the record."""
        values: dict[str, Any] = {
            "level": level_of(record).lower(),
            "logger": record.name,
            "message": message_of(record),
            "file": record.pathname,
            "line": record.lineno,
        }
        if trace := traceback_of(record):
            values["traceback"] = trace
        self._lines.write(values, labels_of(record), record.created)


def _value(name: str, text: str) -> object:
    try:
        if name in _NUMBERS:
            return int(text)
        return float(text) if name == "aj_duration" else text
    except ValueError:
        return text
