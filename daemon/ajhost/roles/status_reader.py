"""Reads the status of a host from its shared files, for the supervisor and for commands of users who may read them: is
it ready, drained, silent, or does none run. Workers' and tasks' states, and the JSON: `core/status_report.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ajhost.adapters.linux import ledger_file, runtime_directory
from ajhost.core import status_report
from ajhost.core.fleet import WorkerState
from ajhost.core.host_counters import Held, counts_of, held_in
from ajhost.core.status_report import ConnectionReport, StatusReport, SupervisorStatus, TaskStatus, WorkerStatus
from ajhost.core.timings import SUPERVISOR_SILENT
from ajhost.ledger.layout import SUPERVISOR_SLOT, LedgerError, Word
from ajhost.ledger.view import Ledger
from ajhost.roles.stats_history import Sample, baseline, resources, route_statuses
from ajhost.roles.supervisor import state_file
from ajhost.roles.supervisor.state_file import HostState

_OUTSIDE = tuple(state.value for state in (WorkerState.DRAINED, WorkerState.STARTING, WorkerState.LEAVING))
"""States of a worker of a host that drains in which it is out of the queue group, or about to be."""


class NotRunning(Exception):
    """No host runs on this runtime directory."""


def read_status(directory: Path, own: int | None = None, own_ledger: Ledger | None = None) -> StatusReport:
    """Reads the status of the host from its shared files, so that it works whatever its processes do.

    `own`: the serial of the calling process's own ledger, if it has one, whose file is not opened: that would drop its
    lock; `own_ledger` is read instead.

    :raises NotRunning: no process holds the directory's lock. :raises OSError: the files may not be read.
    """
    state = state_file.read(directory)
    if not runtime_directory.is_locked(directory):
        raise NotRunning(nobody(directory))
    pid = runtime_directory.holder(directory)
    if state is None:
        state = HostState(pid, 0, False, 0, {})
    # one moment for all tasks, or a younger one could seem to run for longer
    now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
    before = baseline(directory, now_ns)
    recent_s = 0.0 if before is None else (now_ns - before.at_ns) / 1e9
    uptime_s = (now_ns - state.started_ns) / 1e9 if state.started_ns else 0.0
    ledgers = chain(_ledgers(directory / "ledger", own), [] if own_ledger is None else [(own_ledger, True)])
    held = _add_up(ledgers, state.routes, before, now_ns, wall_ns)
    if held.connection is None and state.waiting:
        held.connection = ConnectionReport("waiting", "", uptime_s, state.waiting, 0)
    draining = state.pid == pid and state.draining
    outside = not held.recovers and all(worker.state in _OUTSIDE for worker in held.workers)
    serves = state.pid == pid and state.ready and any(worker.state == status_report.SERVING for worker in held.workers)
    supervisor = SupervisorStatus(
        pid,
        state.generation,
        ready=serves and not draining and not state.stopping,
        version=state.version,
        settings=state.settings,
        uptime_s=uptime_s,
        connection=held.connection,
        last_death=state.last_death,
        died_s=_ago(state.died_at),
        silent_s=held.silent_s,
        stopping=state.stopping,
        last_replaced=state.last_replaced,
        replaced_s=_ago(state.replaced_at),
        drain_by=state.drain_by if draining else "",
        drain_s=_ago(state.drain_at) if draining else 0.0,
    )
    served = state.routes.get(state.generation, ())
    return StatusReport(
        supervisor,
        tuple(sorted(held.workers, key=lambda w: (w.slot, w.generation))),
        state.count,
        tuple(route_statuses(directory, served, held.running, held.waiting, before, recent_s)),
        recent_s,
        draining,
        draining and outside and not held.left,
        held.left,
    )


@dataclass(slots=True)
class _Ledgers:
    """The sums over all ledgers of the host. `recovers`: a dead process's ledger has requests without an answer."""

    workers: list[WorkerStatus] = field(default_factory=list)
    running: Counter[str | None] = field(default_factory=Counter)
    waiting: Counter[str | None] = field(default_factory=Counter)
    left: int = 0
    recovers: bool = False
    connection: ConnectionReport | None = None
    silent_s: float = 0.0


def _add_up(
    ledgers: Iterable[tuple[Ledger, bool]],
    routes: Mapping[int, Sequence[str]],
    before: Sample | None,
    now_ns: int,
    wall_ns: int,
) -> _Ledgers:
    found = _Ledgers()
    for ledger, lives in ledgers:
        names = routes.get(ledger.generation, ())
        held = held_in(ledger, names)
        found.left += held.left
        found.waiting += held.waiting
        if not lives:
            found.recovers = True
            continue
        if ledger.slot == SUPERVISOR_SLOT:
            found.connection = ConnectionReport.of(ledger.connection(), now_ns)
            beat_ns = ledger.words[Word.HEARTBEAT]
            silent_s = (now_ns - beat_ns) / 1e9 if beat_ns else 0.0
            found.silent_s = silent_s if silent_s > SUPERVISOR_SILENT else 0.0
        else:
            found.workers.append(_worker(ledger, held, names, before, now_ns, wall_ns))
        found.running += held.running
    return found


def _ago(at: float) -> float:
    """Returns how many seconds ago a moment was (seconds since 1970; 0: none)."""
    return max(time.time() - at, 0.0) if at else 0.0


def _ledgers(directory: Path, own: int | None) -> Iterator[tuple[Ledger, bool]]:
    """Yields the ledgers, each mapped while it is read, and whether its process lives.

    A dead process's ledger exists until all its requests have answers.
    """
    for serial in ledger_file.serials(directory):
        if serial == own:
            continue
        with contextlib.suppress(FileNotFoundError, LedgerError):
            lives = ledger_file.locked_by(directory, serial) is not None
            ledger = ledger_file.MappedLedger(directory, serial, writable=False)
            try:
                yield ledger, lives
            finally:
                ledger.close()


def _worker(
    ledger: Ledger, held: Held, names: Sequence[str], before: Sample | None, now_ns: int, wall_ns: int
) -> WorkerStatus:
    words = ledger.words
    tasks = tuple(TaskStatus.of(entry, names, now_ns, wall_ns) for entry in held.started)
    return WorkerStatus(
        ledger.slot,
        words[Word.PID],
        ledger.generation,
        status_report.worker_state(ledger),
        tasks,
        counts_of(ledger),
        ConnectionReport.of(ledger.connection(), now_ns),
        *resources(words[Word.PID], now_ns, before),
    )


def nobody(directory: Path) -> str:
    """Says that no host runs, and which workers of one that was killed still do."""
    orphans = []
    with contextlib.suppress(OSError):
        orphans = [
            f"worker {ledger.slot} (pid {ledger.words[Word.PID]})"
            for ledger, lives in _ledgers(directory / "ledger", None)
            if lives and ledger.slot != SUPERVISOR_SLOT
        ]
    text = f"no ajhost runs on {directory}"
    if orphans:
        text += f"; of one that was killed there still are: {', '.join(orphans)}. They finish what they hold"
    return text
