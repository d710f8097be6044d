"""`ajhost drain`: has a host leave the queue group (`roles/supervisor/drain.py`), and waits for that with `--wait`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import Duration, config_option, json_option
from ajhost.cli.output import echo, echo_error, show_progress, to_json
from ajhost.cli.running_host import ask_host
from ajhost.cli.status import reader
from ajhost.core.status_report import StatusReport, drain_text
from ajhost.core.timings import DRAIN_LOOK_INTERVAL

_EPILOG = """\b
Examples:
  ajhost drain
  ajhost drain --wait --timeout 5m && reboot
\b
Exit status: 0 the host drains (with --wait: is drained), 1 it does not (or not in time), 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--wait", is_flag=True, help="Return when nothing is left.")
@click.option(
    "--timeout",
    type=Duration(min=0),
    metavar="TIME",
    help="With --wait: give up waiting after this; the host drains on.",
)
@json_option
def drain(config: Path, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Take the host out of the queue group, for maintenance.

    It gets no new tasks, finishes those that it has, waiting ones too, and stays up. This lasts over reloads and over
    crashes until `ajhost resume`; a host that is stopped and started serves again. Other hosts of the group go on.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    if (status := ask_host(config, {"ask": "drain"}, quiet=wait or as_json)) != exit_status.OK:
        return status
    end = None if timeout is None else time.monotonic() + timeout
    return _follow(config, end if wait else 0.0, as_json=as_json) if wait or as_json else exit_status.OK


def _follow(config: Path, end: float | None, *, as_json: bool) -> int:
    """Reads the status until the host is drained, or until `end` (monotonic seconds; 0: once), and prints it."""
    read, shown = reader(config), ""
    while True:
        report = read()
        over = end is not None and time.monotonic() >= end
        if report.drained or over or not report.draining:
            if shown:
                show_progress("")
            tell(report, as_json=as_json)
            return exit_status.OK if report.drained or end == 0.0 else exit_status.NO
        text = drain_text(report.left, drained=False)
        if text != shown and sys.stderr.isatty():
            shown = text
            show_progress(text)
        time.sleep(DRAIN_LOOK_INTERVAL)


def tell(report: StatusReport, *, as_json: bool) -> None:
    """Prints the progress of a drain, or that the host does not drain."""
    if as_json:
        body = report.as_object()
        echo(to_json({name: body[name] for name in ("draining", "drained", "left", "serving", "slots")}))
    elif report.drained:
        echo(drain_text(0, drained=True))
    elif report.draining:
        echo_error(f"{drain_text(report.left, drained=False)}; the host drains on")
    else:
        echo_error("the host does not drain any more: somebody has resumed or restarted it")
