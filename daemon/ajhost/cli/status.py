"""`ajhost status`."""

from __future__ import annotations

from pathlib import Path

import click

from ajhost.cli.common import config_option, report_unreadable, runtime_directory, wrong_host
from ajhost.cli.output import columns, echo, echo_error, to_json
from ajhost.core.status import StatusReport

EXIT_OK, EXIT_INCOMPLETE, EXIT_NOTHING = 0, 1, 3
_EPILOG = """\b
Examples:
  ajhost status
  ajhost status --json | jq '.workers[].tasks[] | select(.running_s > 10)'
  watch -n 1 ajhost status
\b
Exit status: 0 every slot serves, 1 some do not, 3 nothing runs.
"""


@click.command(epilog=_EPILOG)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(config: Path, as_json: bool) -> int:
    """Show every worker, every running task, and counts.

    It reads shared memory and asks no process, so it also shows those that hang.
    """
    directory = runtime_directory(config)
    from ajhost.roles.host_client import NotRunning
    from ajhost.roles.host_client import status as read

    try:
        if (problem := wrong_host(directory, config)) is not None:
            echo_error(problem)
            return EXIT_NOTHING
        report = read(directory)
    except NotRunning as error:
        echo_error(str(error))
        return EXIT_NOTHING
    except OSError as error:
        report_unreadable(directory, error)
        return EXIT_NOTHING
    echo(to_json(report.as_object()) if as_json else _text(report))
    return EXIT_OK if report.complete else EXIT_INCOMPLETE


def _text(report: StatusReport) -> str:
    supervisor = report.supervisor
    parts = [
        f"supervisor pid {supervisor.pid}, generation {supervisor.generation}, "
        f"{'ready' if supervisor.ready else 'not ready'}; {report.serving} of {report.count} slots serve"
    ]
    if report.workers:
        names = [name for name in report.workers[0].counts if not name.endswith("_ns")]
        workers: list[tuple[object, ...]] = [
            ("SLOT", "PID", "GEN", "STATE", "RUNNING", *map(str.upper, names))
        ]
        workers += [
            (w.slot, w.pid, w.generation, w.state, len(w.tasks), *(w.counts[name] for name in names))
            for w in report.workers
        ]
        parts.append(columns(workers))
    tasks: list[tuple[object, ...]] = [("SLOT", "TASK", "TYPE", "ROUTE", "STATE", "FOR", "DEADLINE")]
    tasks += [
        (w.slot, t.id, t.type, t.route or '""', t.state, f"{t.running_s:.1f} s", t.deadline)
        for w in report.workers
        for t in w.tasks
    ]
    if len(tasks) > 1:
        parts.append(columns(tasks))
    return "\n\n".join(parts)
