"""The tables of a host, which `ajhost status` and `ajhost tasks` print and `ajhost top` shows live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ajhost.cli.output import columns, moment
from ajhost.core.status_report import DISCONNECTED, SERVING, StatusReport, TaskStatus, WorkerStatus
from ajhost.protocol.timestamps import SECOND, parse


def _plain(row: Any) -> str:
    return ""


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
    style: Callable[[Any], str] = _plain


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
    """Returns the running tasks, the oldest first."""
    return sorted(running_tasks(report), key=lambda found: -found.task.running_s)


def printed(table: Sequence[Column], rows: Iterable[Any]) -> str:
    """Returns the table as text."""
    shown = [column for column in table if column.printed]
    cells = [[column.cell(row) for column in shown] for row in rows]
    return columns([[column.title for column in shown], *cells])


def size(count: int) -> str:
    """Returns bytes as `25 MiB`."""
    return f"{count / (1 << 20):.0f} MiB"


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
    Column("MEMORY", lambda w: size(w.memory), lambda w: w.memory),
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
