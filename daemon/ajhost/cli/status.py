"""`ajhost status` and `ajhost tasks`: how the host stands, and what it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import Duration, config_option, is_named, json_option
from ajhost.cli.output import echo, echo_error, to_json
from ajhost.cli.running_host import asking, check_meant, runtime_directory
from ajhost.cli.status_tables import ROUTES, TASKS, WORKERS, RunningTask, printed, rate, running_tasks
from ajhost.core.connection_report import duration
from ajhost.core.status_report import CATCH_ALL, StatusReport, drain_text
from ajhost.protocol.safe_text import printable

_EPILOG = """\b
Examples:
  ajhost status
  ajhost status --json | jq '.workers[].tasks[] | select(.running_s > 10)'
  watch -n 1 ajhost status
\b
Exit status: 0 every slot serves, 1 some do not or the host is drained, 3 nothing runs.
"""
_TASKS_EPILOG = """\b
Examples:
  ajhost tasks --older 10s
  ajhost tasks --route email:new --json | jq -r '.[].id'
\b
Exit status: 0 also when no task runs, 3 no host runs.
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
    """Prints a status; the exit status."""
    echo(to_json(report.as_object()) if as_json else "\n\n".join(_text(report)))
    return exit_status.OK if report.complete else exit_status.NO


@click.command(epilog=_TASKS_EPILOG)
@config_option
@click.option("--route", metavar="ROUTE", help=f'Only tasks of this route; "{CATCH_ALL}" for the catch-all.')
@click.option(
    "--older",
    metavar="TIME",
    type=Duration(min=0),
    default=0.0,
    help="Only tasks that have run for so long, like 10s.",
)
@json_option
def tasks(config: Path, route: str | None, older: float, as_json: bool) -> int:
    """Show the tasks that run, the oldest first.

    It reads shared memory and asks no process, so it also shows tasks of workers that hang.
    """
    report = reader(config)()
    wanted = "" if route == CATCH_ALL else route
    found = [
        row
        for row in _oldest_first(report)
        if row.task.running_s >= older and wanted in (None, row.task.route)
    ]
    if as_json:
        echo(
            to_json(
                [
                    {"slot": row.worker.slot, "pid": row.worker.pid, "worker_state": row.worker.state}
                    | asdict(row.task)
                    for row in found
                ]
            )
        )
    elif found:
        echo(printed(TASKS, found))
    else:
        routes = [known.route for known in report.routes]
        if wanted is not None and wanted not in routes:
            echo_error(f"the host has no route {wanted!r}; it has {', '.join(map(repr, routes))}")
        else:
            echo_error("no task runs" + (" of that route and age" if older or route is not None else ""))
    return exit_status.OK


def reader(config: Path) -> Callable[[], StatusReport]:
    """What reads the host of some settings, in any thread; it raises NoHost."""
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
    """What there is to say of the whole host: of its settings, its supervisor, its slots, and the last death."""
    supervisor = report.supervisor
    lines = []
    if supervisor.version:
        settings = supervisor.settings or "of the environment"
        lines.append(f"ajhost {supervisor.version}, settings {settings}, up {duration(supervisor.uptime_s)}")
    # a supervisor that was ready has a connection, and its ledger tells of it
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
    if tasks := _oldest_first(report):
        yield printed(TASKS, tasks)


def _of_late(report: StatusReport) -> str:
    if not report.recent_s:
        return ""
    answers = sum(route.per_second for route in report.routes)
    errors = sum(route.errors_per_second for route in report.routes)
    return f"; {rate(answers)} answers/s, {rate(errors)} errors/s in the last {duration(report.recent_s)}"


def _oldest_first(report: StatusReport) -> list[RunningTask]:
    return sorted(running_tasks(report), key=lambda found: -found.task.running_s)
