"""`ajhost status`: shows the host: lines about the whole, and a table each of its workers, routes and running tasks,
whose columns `ajhost top` and `ajhost tasks` show, too. `roles/status_reader.py` reads the values;
`core/status_report.py` has a worker's state and a connection in words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ajhost.cli import exit_status
from ajhost.cli.options import config_option, is_named, json_option
from ajhost.cli.output import columns, echo, moment, to_json
from ajhost.cli.running_host import asking, check_meant, runtime_directory
from ajhost.core.status_report import (
    DISCONNECTED,
    SERVING,
    StatusReport,
    TaskStatus,
    WorkerStatus,
    drain_text,
    duration,
)
from ajhost.protocol.safe_text import printable
from ajhost.protocol.timestamps import SECOND, parse

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


# -- the tables, which `ajhost tasks` prints as well, and `ajhost top` shows live ---------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `cell` returns the text or number of a row. All fields after `printed` are for `ajhost top`.

    `key`: the sort key of rows, numbers from the largest; None: `cell`. `rank`: if not all columns have room, the one
    of the highest rank is left out first. `free`: a text that may be cut; `name`: cut it in its middle, as names often
    begin alike. `printed`, `live`: whether `ajhost status` has the column, and `ajhost top`.
    """

    title: str
    cell: Callable[[Any], int | str]
    key: Callable[[Any], Any] | None = None
    rank: int = 0
    printed: bool = True
    live: bool = True
    number: bool = True
    free: bool = False
    name: bool = False
    style: Callable[[Any], str] = lambda row: ""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A row of `TASKS`."""

    worker: WorkerStatus
    task: TaskStatus

    @property
    def deadline(self) -> float:
        """The deadline in seconds since 1970."""
        return parse(self.task.deadline) / SECOND

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()


def running_tasks(report: StatusReport) -> list[RunningTask]:
    """Returns the running tasks in the order of the status."""
    return [RunningTask(worker, task) for worker in report.workers for task in worker.tasks]


def oldest_first(report: StatusReport) -> list[RunningTask]:
    return sorted(running_tasks(report), key=lambda found: -found.task.running_s)


def printed(table: Sequence[Column], rows: Iterable[Any]) -> str:
    shown = [column for column in table if column.printed]
    cells = [[column.cell(row) for column in shown] for row in rows]
    return columns([[column.title for column in shown], *cells])


def rate(per_second: float) -> str:
    """Returns a rate with three digits, or with all digits of a larger one, without a fraction."""
    return f"{per_second:.3g}" if per_second < 999.5 else f"{per_second:.0f}"


def latency(seconds: float | None) -> str:
    """Returns seconds as `12 ms` or `1.5 s`, and `-` for None."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _state_style(worker: WorkerStatus) -> str:
    if worker.state == SERVING:
        return "class:good"
    return "class:bad" if worker.state in (DISCONNECTED, "hung") else "class:warn"


WORKERS = (
    Column("SLOT", lambda w: w.slot, lambda w: (w.slot, w.generation)),
    Column("PID", lambda w: w.pid, rank=3),
    Column("GEN", lambda w: w.generation, rank=4),
    Column("STATE", lambda w: w.state, lambda w: (w.state == SERVING, w.state), number=False, style=_state_style),
    Column("RUNNING", lambda w: len(w.tasks), rank=1),
    Column("MEMORY", lambda w: f"{w.memory / (1 << 20):.0f} MiB", lambda w: w.memory),
    Column("CPU", lambda w: f"{w.cpu:.0%}", lambda w: w.cpu),
    Column("CONNECTION", lambda w: str(w.connection or "-"), rank=2, number=False, free=True),
)  # fmt: skip
ROUTES = (
    Column("ROUTE", lambda r: r.route or '""', number=False, free=True, name=True),
    Column("RUNNING", lambda r: r.running, rank=2),
    Column("WAITING", lambda r: r.waiting, rank=3),
    Column("PER S", lambda r: rate(r.per_second), lambda r: r.per_second),
    Column("ERR/S", lambda r: rate(r.errors_per_second), lambda r: r.errors_per_second, rank=1, printed=False,
           style=lambda r: "class:bad" if r.errors_per_second > 0 else ""),
    Column("P50", lambda r: latency(r.p50_s), lambda r: r.p50_s or 0.0, rank=8),
    Column("P99", lambda r: latency(r.p99_s), lambda r: r.p99_s or 0.0),
    Column("WAIT P99", lambda r: latency(r.waiting_p99_s), lambda r: r.waiting_p99_s or 0.0, rank=7),
    Column("COMPLETED", lambda r: r.completed, rank=5),
    Column("FAILED", lambda r: sum(r.failed.values()), rank=4),
    Column("TERMINATED", lambda r: r.terminated, rank=9),
    Column("REFUSED", lambda r: sum(r.refused.values()), rank=6),
)  # fmt: skip
TASKS = (
    Column("SLOT", lambda t: t.worker.slot, rank=3),
    Column("TASK", lambda t: t.task.id, number=False),
    Column("TYPE", lambda t: t.task.type, rank=4, number=False, free=True, name=True),
    Column("ROUTE", lambda t: t.task.route or '""', rank=6, number=False, free=True, name=True),
    Column("STATE", lambda t: t.task.state, rank=5, number=False,
           style=lambda t: "class:bad" if t.left_s <= 0 else ""),
    Column("FOR", lambda t: f"{t.task.running_s:.1f} s", lambda t: t.task.running_s),
    Column("DEADLINE", lambda t: moment(t.deadline), live=False),
    Column("LEFT", lambda t: f"{t.left_s:.1f} s", lambda t: -t.left_s, rank=2, printed=False),
)  # fmt: skip
