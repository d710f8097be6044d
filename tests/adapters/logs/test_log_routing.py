"""The host's log survives whatever an application does to logging, and each record is there once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DAEMON = str(Path(__file__).parents[2] / "daemon")
HOSTILE = {
    "dictConfig": "logging.config.dictConfig({'version': 1})",
    "dictConfig with a root": (
        "logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True, 'root': {'level': 'ERROR', "
        "'handlers': ['c']}, 'handlers': {'c': {'class': 'logging.NullHandler'}}})"
    ),
    "dictConfig that names us": (
        "logging.config.dictConfig({'version': 1, 'loggers': {'ajhost': {'level': 'CRITICAL', 'propagate': False, "
        "'handlers': []}}})"
    ),
    "fileConfig": (
        "import io; logging.config.fileConfig(io.StringIO('[loggers]\\nkeys=root\\n[handlers]\\nkeys=n\\n"
        "[formatters]\\nkeys=\\n[logger_root]\\nlevel=ERROR\\nhandlers=n\\n[handler_n]\\nclass=NullHandler\\nargs=()\\n'))"
    ),
    "basicConfig by force": "logging.basicConfig(force=True, handlers=[logging.NullHandler()])",
    "shutdown": "logging.shutdown()",
    "disable": "logging.disable(logging.CRITICAL)",
    "no handlers": "logging.getLogger().handlers.clear()",
    "other handlers": "logging.root.handlers = []",
    "a level": "logging.getLogger('ajhost').setLevel(logging.NOTSET)",
    "disabled": "logging.getLogger('ajhost.worker').disabled = True",
    "everything closed": "[ref().close() for ref in list(logging._handlerList) if ref() is not None]",
}


def run(script: str, form: str = "auto", levels: str = "()") -> list[str]:
    """The lines on stderr of a worker's process that runs the script."""
    prologue = (
        "import logging, logging.config, sys\nfrom ajhost.adapters.logs import log_outputs\n"
        "from ajhost.settings.sections import LogSettings as Log\n"
        "own, app = logging.getLogger('ajhost.worker'), logging.getLogger('acme')\n"
        f"log_outputs.configure(Log(format={form!r}, levels={levels}), 'worker', 1, 2)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
    done = subprocess.run(
        [sys.executable, "-c", prologue + script],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={**environment, "PYTHONPATH": DAEMON},
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("form", ["auto", "json"])
def test_the_hosts_records_are_there_once_whatever_was_configured(what: str, form: str) -> None:
    lines = run(
        f"{HOSTILE[what]}\nown.info('here')\nown.debug('not wanted')\nlogging.getLogger('ajhost.new').info('new')",
        form,
    )
    assert [("here" in line, "new" in line) for line in lines] == [(True, False), (False, True)], lines


def test_after_a_fork_they_are_there_too() -> None:
    script = f"{HOSTILE['dictConfig']}\nlog_outputs.configure(Log(), 'worker', 3, 2)\nown.info('here')"
    (line,) = run(script)
    assert line.endswith("INFO    worker 3: here")


def test_an_applications_records_are_there_once() -> None:
    (line,) = run("app.warning('plain')")
    assert line.endswith("WARNING worker 1: plain")
    (line,) = run("logging.basicConfig(format='theirs: %(message)s')\napp.warning('x')")
    assert line == "theirs: x"
    (line,) = run("app.addHandler(logging.StreamHandler())\napp.warning('x')")
    assert line == "x"
    (line,) = run("app.addHandler(logging.NullHandler())\napp.warning('of a library')")
    assert line.endswith("worker 1: of a library")
    (line,) = run("logging.getLogger().addHandler(logging.FileHandler('/dev/null'))\napp.warning('in a file too')")
    assert line.endswith("worker 1: in a file too")


def test_functions_of_the_logging_module_change_no_format() -> None:
    first, second = run("logging.info('first')\nlogging.basicConfig()\napp.info('second')")
    assert first.endswith("INFO    worker 1: first")
    assert second.endswith("INFO    worker 1: second")


def test_an_applications_level_is_its_own() -> None:
    lines = run(
        "logging.getLogger().setLevel('DEBUG')\nlog_outputs.configure(Log(), 'worker', 1, 2)\napp.debug('wanted')"
    )
    assert len(lines) == 1
    assert (
        run("logging.getLogger().setLevel('ERROR')\nlog_outputs.configure(Log(), 'worker', 1, 2)\napp.info('no')") == []
    )
    lines = run("logging.basicConfig(level='DEBUG', format='%(message)s')\napp.debug('wanted')\nown.debug('not')")
    assert lines == ["wanted"]
    lines = run(
        "log_outputs.configure(Log('warning'), 'worker', 1, 2)\napp.info('no')\nown.info('no')\nown.warning('yes')"
    )
    assert len(lines) == 1


def test_levels_of_single_loggers() -> None:
    script = "app.info('no')\napp.warning('yes')\n"
    script += "logging.getLogger('loud').debug('yes')\nlogging.getLogger('x').debug('no')"
    lines = run(script, levels="[('acme', 'warning'), ('loud', 'debug')]")
    assert [line.rpartition(" ")[2] for line in lines] == ["yes", "yes"]


def test_json_is_one_object_a_line_with_stable_names() -> None:
    script = """
from ajhost.adapters.logs.log_record import CURRENT_TASK, TaskLabels
class Run:
    def labels(self): return TaskLabels('T1', 'email:new', 'email:', 2, 0.25)
CURRENT_TASK.set(Run())
app.warning('two\\nlines \\u202e \\x1b[2J')
try: 1 / 0
except ZeroDivisionError: own.exception('failed', extra={'aj_outcome': 'failed'})
print('printed', file=sys.stdout)
print('to stderr\\nand more', file=sys.stderr)
"""
    records = [json.loads(line) for line in run(script, "json")]
    task = {"task": "T1", "type": "email:new", "route": "email:", "tries": 2, "duration": 0.25}
    for record in records:
        assert record.items() >= {"role": "worker", "slot": 1, "generation": 2, **task}.items()
        assert record["time"].endswith("Z")
    first, second, *prints = records
    assert (first["level"], first["logger"], first["message"]) == (
        "warning",
        "acme",
        "two\nlines \\u202e \\x1b[2J",
    )
    assert second["outcome"] == "failed"
    assert "ZeroDivisionError" in second["traceback"]
    assert [(r["stream"], r["level"], r["message"]) for r in prints] == [
        ("stdout", "info", "printed"),
        ("stderr", "warning", "to stderr"),
        ("stderr", "warning", "and more"),
    ]


ODD = """
import os
odd = [
    {'msg': os.fsdecode(b'a \\xff file')},
    {'name': 'a\\udcff'}, {'name': object()}, {'name': None}, {'pathname': 'a\\udcff'}, {'pathname': object()},
    {'levelno': 35, 'levelname': 5}, {'lineno': None}, {'created': 'now'}, {'created': float('inf')},
    {'created': -1e20}, {'msecs': None}, {'exc_info': (1, 2, 3)}, {'stack_info': object()}, {'args': object()},
]
for given in odd:
    app.handle(logging.makeLogRecord({'msg': 'text', 'levelno': 40, 'levelname': 'ERROR', **given}))
"""


@pytest.mark.parametrize("form", ["auto", "json"])
def test_a_record_that_an_application_made_oddly_is_written_and_fails_nobody(form: str) -> None:
    lines = run(ODD, form)
    assert len(lines) == 15
    assert r"a \udcff file" in (json.loads(lines[0])["message"] if form == "json" else lines[0])
    assert all("text" in line for line in lines[1:])


def test_what_an_application_writes_to_stderr_has_the_level_of_its_record() -> None:
    lines = run("logging.basicConfig(format='%(message)s')\napp.error('bad')\napp.warning('hm')", "json")
    assert [json.loads(line)["level"] for line in lines] == ["error", "warning"]


def test_an_id_can_neither_end_a_line_nor_drive_a_terminal() -> None:
    lines = run("app.warning('x', extra={'aj_task': 'a\\n2026-01-01 INFO forged\\x1b[2J\\u202e', 'aj_type': 't'})")
    assert len(lines) == 1
    assert lines[0].endswith("[t a\\n2026-01-01 INFO forged\\x1b[2J\\u202e]")


SENTRY = """
import sentry_sdk
from sentry_sdk.transport import Transport

class Heard(Transport):
    def capture_envelope(self, envelope):
        print([item.payload.json['logentry']['formatted'] for item in envelope.items])

sentry_sdk.init(dsn='http://key@127.0.0.1:1/1', transport=Heard)
"""
RAISED = """
try:
    raise RuntimeError('boom')
except RuntimeError:
    own.error('a task: boom', exc_info=True)
own.error('no exception')
"""


@pytest.mark.parametrize("again", ["", "log_outputs.configure(Log(), 'worker', 3, 2)"], ids=["", "before a fork"])
def test_a_hook_on_logging_hears_of_exceptions_that_handlers_let_through(again: str) -> None:
    script = f"import sys\nsys.stdout = sys.stderr\n{SENTRY}\n{again}\n{RAISED}\napp.error('theirs')"
    lines = run(script)
    assert [line for line in lines if line.startswith("[")] == ["['a task: boom']", "['theirs']"]
    assert [("a task: boom" in line, "theirs" in line) for line in lines if " ERROR " in line] == [
        (True, False), (False, False), (False, True),
    ]  # fmt: skip


def test_a_handler_that_an_application_has_added_hears_of_exceptions_too_unless_it_writes_to_the_console() -> None:
    theirs = """
class Mail(logging.Handler):
    def emit(self, record):
        sys.stderr.write(f'mail: {record.getMessage()}\\n')

logging.config.dictConfig({'version': 1, 'disable_existing_loggers': True})
logging.getLogger().addHandler(Mail())
logging.getLogger().addHandler(logging.StreamHandler())
logging.disable(logging.CRITICAL)
"""
    lines = [line for line in run(theirs + RAISED) if "boom" in line and not line.startswith(" ")]
    assert lines[0].endswith("ERROR   worker 1: a task: boom")
    assert lines[1:] == ["mail: a task: boom"]


def test_a_hook_that_raises_takes_nothing_from_the_host() -> None:
    broken = "def hook(logger, record):\n    raise ValueError\nlogging.Logger.callHandlers = hook\n"
    lines = run(broken + RAISED + "own.error('after')")
    assert [line.rpartition(": ")[2] for line in lines if " ERROR " in line] == [
        "boom",
        "no exception",
        "after",
    ]
