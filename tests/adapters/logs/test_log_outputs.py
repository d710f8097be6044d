"""Log lines on a terminal or in a file, and what is configured for it."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import warnings
from datetime import UTC, datetime

import pytest

from ajhost.adapters.logs import log_outputs
from ajhost.settings.sections import LogSettings
from tests.adapters.systemd.test_journald import APPLICATION, DAEMON


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_record_is_one_readable_line(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    log_outputs.configure(LogSettings(), "worker", 2, 7)
    logging.getLogger("nats.aio").info("connected", extra={"aj_task": "T1", "aj_type": "email:new"})
    logging.getLogger("x").debug("not wanted")
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(rf"{moment} INFO    worker 2: connected \[email:new T1\]\n", stream.getvalue())


def test_an_application_that_sets_its_time_zone_leaves_the_lines_of_the_host_theirs() -> None:
    # what Django does when it is set up
    code = (
        "import logging, os, time\nfrom ajhost.adapters.logs import log_outputs\n"
        "from ajhost.settings.sections import LogSettings\n"
        "os.environ['TZ'] = 'Pacific/Kiritimati'\ntime.tzset()\n"
        "log_outputs.configure(LogSettings(), 'worker', 0, 1)\nlogging.getLogger('x').info(int(time.time()))\n"
    )
    for zone, offset in (
        ("Asia/Kathmandu", 20_700),
        ("XYZ-2", 50_400),
    ):  # the C library's own form is not read
        env = {**os.environ, "TZ": zone, "PYTHONPATH": os.pathsep.join(sys.path)}
        line = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stderr
        shown = datetime.fromisoformat(line[:19]).replace(tzinfo=UTC).timestamp()
        assert abs(shown - offset - int(line.split()[-1])) < 60


def test_no_text_can_pass_for_a_record(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    log_outputs.configure(LogSettings(), "supervisor")
    APPLICATION.error("one\n2026-01-01 00:00:00.000 INFO    supervisor: forged\x1b[2J")
    first, second = stream.getvalue().splitlines()
    assert first.endswith("ERROR   supervisor: one")
    assert second == "    2026-01-01 00:00:00.000 INFO    supervisor: forged\\x1b[2J"


def test_configuring_again_replaces_only_what_was_configured_here(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    theirs = logging.NullHandler()
    log_outputs.configure(LogSettings(), "template", None, 3)
    root.addHandler(theirs)
    log_outputs.configure(LogSettings("warning"), "worker", 0, 3)
    APPLICATION.warning("once")
    APPLICATION.info("not wanted")
    assert stream.getvalue().count("\n") == 1
    assert theirs in root.handlers


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
    ids=["terminal", "NO_COLOR", "dumb", "file"],
)
def test_colours_are_for_terminals_that_want_them(
    root: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    environment: dict[str, str],
    coloured: bool,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stream)
    log_outputs.configure(LogSettings(), "supervisor")
    APPLICATION.error("red?")
    assert ("\x1b[31mERROR  \x1b[0m" in stream.getvalue()) is coloured


def test_warnings_are_logged(root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    log_outputs.configure(LogSettings(), "worker", 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old habits", DeprecationWarning, stacklevel=1)
    assert "DeprecationWarning: old habits" in stream.getvalue()


def test_an_unknown_level_is_an_error(root: logging.Logger) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        log_outputs.configure(LogSettings("loud"), "worker", 1, 1)


@pytest.mark.parametrize(
    ("role", "slot", "name"),
    [("supervisor", None, "ajhost"), ("template", None, "ajhost-template"), ("worker", 3, "ajhost-worker-3")],
)
def test_processes_have_names_in_the_journal(role: str, slot: int | None, name: str) -> None:
    assert log_outputs.identifier(role, slot) == name


def test_a_stderr_that_is_closed_takes_nothing_and_harms_nobody() -> None:
    program = (
        "from ajhost.adapters.logs import log_outputs; import logging\n"
        "from ajhost.settings.sections import LogSettings\n"
        "log_outputs.configure(LogSettings(), 'worker', 1, 1)\n"
        "logging.getLogger().info('into the void'); print('went on')\n"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec 2>&-; exec "$0" -c "$1"', sys.executable, program],
        env={**os.environ, "PYTHONPATH": DAEMON},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "went on\n"
