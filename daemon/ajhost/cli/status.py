"""`ajhost status`: shows the state of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import config_option, is_named, json_option
from ajhost.cli.output import echo, to_json
from ajhost.cli.running_host import asking, check_meant, runtime_directory
from ajhost.cli.status_tables import ROUTES, TASKS, WORKERS, oldest_first, printed, rate
from ajhost.core.status_report import StatusReport, drain_text, duration
from ajhost.protocol.safe_text import printable

_EPILOG = """\b
Examples:
  ajhost status
  ajhost status --json | jq '.workers[].tasks[] | select(.running_s > 10)'
  watch -n 1 ajhost status
\b
Exit status: 0 every slot serves, 1 some do not or the host is drained, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@json_option
def status(config: Path, as_json: bool) -> int:
    """Show the connection, every worker, every route and every running task.

    It reads shared memory and asks no process, so it also shows those that hang.
    """
    return print_once(reader(config)(), as_json=as_json)


def print_once(report: StatusReport, *, as_json: bool = False) -> int:
    """Prints a status. Returns the exit status."""
    echo(to_json(report.as_object()) if as_json else "\n\n".join(_text(report)))
    return exit_status.OK if report.complete else exit_status.NO


def reader(config: Path) -> Callable[[], StatusReport]:
    """Returns a function that reads the status of these settings' host, in any thread, and that raises NoHost."""
    directory, named = runtime_directory(config), is_named()
    from ajhost.roles.control_client import view
    from ajhost.roles.status_reader import read_status as read

    def look() -> StatusReport:
        with asking(directory):
            if named:
                check_meant(directory, config)
            try:
                return read(directory)
            except PermissionError:
                return view(directory)

    return look


def head(report: StatusReport) -> list[str]:
    """Returns the lines on the whole host: its settings, its supervisor, its slots, its drain, and the last death."""
    supervisor = report.supervisor
    lines = []
    if supervisor.version:
        settings = supervisor.settings or "of the environment"
        lines.append(f"ajhost {supervisor.version}, settings {settings}, up {duration(supervisor.uptime_s)}")
    # a supervisor that was ready has a connection, whose status is in its ledger
    unconnected = "its ledger file is gone: restart the host" if supervisor.ready else "not connected yet"
    lines.append(
        f"supervisor pid {supervisor.pid}, generation {supervisor.generation}, "
        f"{_life(report)}, {supervisor.connection or unconnected}"
    )
    drain = f"{drain_text(report.left, drained=report.drained)}: " if report.draining else ""
    if report.count:
        serve = f"{report.serving} of {report.count} slots serve"
    else:
        serve = f"{report.serving} slots serve" if report.workers else "no slot serves yet"
    lines.append(f"{drain}{serve}{_of_late(report)}")
    if supervisor.drain_by:
        asked = f"the drain was asked for {duration(supervisor.drain_s)} ago by {supervisor.drain_by}"
        lines.append(f"{asked}; `ajhost resume` ends it")
    if supervisor.last_death:
        lines.append(f"last death {duration(supervisor.died_s)} ago: {supervisor.last_death}")
    if supervisor.last_replaced:
        lines.append(f"last replaced {duration(supervisor.replaced_s)} ago: {supervisor.last_replaced}")
    return [printable(line) for line in lines]


def _life(report: StatusReport) -> str:
    supervisor = report.supervisor
    if supervisor.silent_s:
        return f"hangs: no sign of life for {duration(supervisor.silent_s)}"
    if supervisor.stopping:
        return "stopping"
    if not report.count and not report.workers:
        return "starting"
    return "ready" if supervisor.ready else "not ready"


def _text(report: StatusReport) -> Iterator[str]:
    yield "\n".join(head(report))
    if report.workers:
        yield printed(WORKERS, report.workers)
    if report.routes:
        yield printed(ROUTES, report.routes)
    if tasks := oldest_first(report):
        yield printed(TASKS, tasks)


def _of_late(report: StatusReport) -> str:
    if not report.recent_s:
        return ""
    answers = sum(route.per_second for route in report.routes)
    errors = sum(route.errors_per_second for route in report.routes)
    return f"; {rate(answers)} answers/s, {rate(errors)} errors/s in the last {duration(report.recent_s)}"
