"""`ajhost status` and `ajhost tasks`: how the host stands, and what it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from ajhost.cli import exit_status
from ajhost.cli.configuration import config_option, is_named
from ajhost.cli.durations import Duration
from ajhost.cli.output import columns, echo, echo_error, moment, to_json
from ajhost.cli.running_host import asking, check_meant, runtime_directory
from ajhost.core.status import (
    CATCH_ALL,
    RouteStatus,
    StatusReport,
    TaskStatus,
    WorkerStatus,
    drain_text,
    duration,
)
from ajhost.protocol.safe_text import printable
from ajhost.protocol.times import SECOND, parse

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
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def tasks(config: Path, route: str | None, older: float, as_json: bool) -> int:
    """Show the tasks that run, the oldest first.

    It reads shared memory and asks no process, so it also shows tasks of workers that hang.
    """
    report = reader(config)()
    wanted = "" if route == CATCH_ALL else route
    found = [
        (worker, task)
        for worker, task in _oldest_first(report)
        if task.running_s >= older and wanted in (None, task.route)
    ]
    if as_json:
        echo(to_json([_task_object(worker, task) for worker, task in found]))
    elif found:
        echo(_task_table(found))
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
    # once it was ready it has a connection, which stands in its own ledger
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
        yield columns(
            [
                ("SLOT", "PID", "GEN", "STATE", "RUNNING", "MEMORY", "CPU", "CONNECTION"),
                *(
                    (
                        w.slot, w.pid, w.generation, w.state, len(w.tasks), size(w.memory), f"{w.cpu:.0%}",
                        w.connection or "-",
                    )
                    for w in report.workers
                ),
            ]
        )  # fmt: skip
    if report.routes:
        yield columns(
            [
                (
                    "ROUTE", "RUNNING", "WAITING", "PER S", "P50", "P99", "WAIT P99", "COMPLETED", "FAILED",
                    "TERMINATED", "REFUSED",
                ),
                *map(_route_row, report.routes),
            ]
        )  # fmt: skip
    if any(worker.tasks for worker in report.workers):
        yield _task_table(list(_oldest_first(report)))


def _of_late(report: StatusReport) -> str:
    if not report.recent_s:
        return ""
    answers = sum(route.per_second for route in report.routes)
    errors = sum(route.errors_per_second for route in report.routes)
    return f"; {rate(answers)} answers/s, {rate(errors)} errors/s in the last {duration(report.recent_s)}"


def _route_row(route: RouteStatus) -> tuple[object, ...]:
    return (
        route.route or '""', route.running, route.waiting, rate(route.per_second), latency(route.p50_s),
        latency(route.p99_s), latency(route.waiting_p99_s), route.completed, sum(route.failed.values()),
        route.terminated, sum(route.refused.values()),
    )  # fmt: skip


def _oldest_first(report: StatusReport) -> list[tuple[WorkerStatus, TaskStatus]]:
    every = [(worker, task) for worker in report.workers for task in worker.tasks]
    return sorted(every, key=lambda found: -found[1].running_s)


def _task_table(found: list[tuple[WorkerStatus, TaskStatus]]) -> str:
    rows: list[tuple[object, ...]] = [("SLOT", "TASK", "TYPE", "ROUTE", "STATE", "FOR", "DEADLINE")]
    rows += [
        (
            w.slot,
            t.id,
            t.type,
            t.route or '""',
            t.state,
            f"{t.running_s:.1f} s",
            moment(parse(t.deadline) / SECOND),
        )
        for w, t in found
    ]
    return columns(rows)


def _task_object(worker: WorkerStatus, task: TaskStatus) -> dict[str, Any]:
    return {
        "slot": worker.slot,
        "pid": worker.pid,
        "worker_state": worker.state,
        "id": task.id,
        "type": task.type,
        "route": task.route,
        "state": task.state,
        "running_s": task.running_s,
        "deadline": task.deadline,
    }


def size(count: int) -> str:
    """Bytes as `25 MiB`."""
    return f"{count / (1 << 20):.0f} MiB"


def rate(per_second: float) -> str:
    """A rate with three digits, or all of them."""
    return f"{per_second:.3g}" if per_second < 999.5 else f"{per_second:.0f}"


def latency(seconds: float | None) -> str:
    """Seconds as `12 ms` or `1.5 s`, `-` for None."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
