"""`ajhost tasks`: lists the tasks that the host runs, the oldest first. `status.py` has the columns."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ajhost.cli import exit_status
from ajhost.cli.options import Duration, config_option, json_option
from ajhost.cli.output import echo, echo_error, to_json
from ajhost.cli.status import TASKS, oldest_first, printed, reader
from ajhost.core.status_report import CATCH_ALL

_EPILOG = """\b
Examples:
  ajhost tasks --older 10s
  ajhost tasks --route email:new --json | jq -r '.[].id'
\b
Exit status: 0 also when no task runs, 3 no host runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--route", metavar="ROUTE", help=f'Only tasks of this route; "{CATCH_ALL}" for the catch-all.')
@click.option(
    "--older", metavar="TIME", type=Duration(min=0), default=0.0, help="Only tasks that have run for so long, like 10s."
)
@json_option
def tasks(config: Path, route: str | None, older: float, as_json: bool) -> int:
    """Show the tasks that run, the oldest first.

    It reads shared memory and asks no process, so it also shows tasks of workers that hang.
    """
    report = reader(config)()
    wanted = "" if route == CATCH_ALL else route
    found = [row for row in oldest_first(report) if row.task.running_s >= older and wanted in (None, row.task.route)]
    if as_json:
        rows = [
            {"slot": row.worker.slot, "pid": row.worker.pid, "worker_state": row.worker.state} | asdict(row.task)
            for row in found
        ]
        echo(to_json(rows))
    elif found:
        echo(printed(TASKS, found))
    else:
        routes = [known.route for known in report.routes]
        if wanted is not None and wanted not in routes:
            echo_error(f"the host has no route {wanted!r}; it has {', '.join(map(repr, routes))}")
        else:
            echo_error("no task runs" + (" of that route and age" if older or route is not None else ""))
    return exit_status.OK
