"""What commands ask of a running host: its status from the shared files, a reload through the control socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from ajhost.adapters.linux import ledger_file, runtime_directory
from ajhost.core.fleet import WorkerState, state_of
from ajhost.core.status import StatusReport, SupervisorStatus, TaskStatus, WorkerStatus
from ajhost.ledger.layout import COUNTERS, SUPERVISOR_SLOT, LedgerError, Phase, State, Word
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.times import render
from ajhost.roles.supervisor import state_file

_CONTROL = "control"
LOCK = "lock"
"""The file with the pid of the host; the lock itself is one of the directory."""


class NotRunning(Exception):
    """No host runs on this runtime directory."""


def status(directory: Path, own: int | None = None) -> StatusReport:
    """Reads the status of the host from its shared files, so that it works whatever its processes do.

    `own`: the serial of the calling process's own ledger, if it has one; a look at the file would drop its lock.

    :raises NotRunning: nobody holds the directory's lock. :raises OSError: the files may not be read.
    """
    state = state_file.read(directory)
    if not runtime_directory.is_locked(directory):
        raise NotRunning(f"no ajhost runs on {directory}")
    workers = []
    for serial in ledger_file.serials(directory / "ledger"):
        if serial == own:
            continue
        with contextlib.suppress(FileNotFoundError, LedgerError):
            if ledger_file.locked_by(directory / "ledger", serial) is None:
                continue
            ledger = ledger_file.MappedLedger(directory / "ledger", serial)
            if ledger.slot != SUPERVISOR_SLOT:
                workers.append(_worker(ledger, {} if state is None else state.routes))
            ledger.close()
    pid = _holder(directory)
    supervisor = SupervisorStatus(
        pid, 0 if state is None else state.generation, state is not None and state.pid == pid and state.ready
    )
    count = 0 if state is None else state.count
    return StatusReport(supervisor, tuple(sorted(workers, key=lambda w: (w.slot, w.generation))), count)


def _worker(ledger: Ledger, routes: Mapping[int, Sequence[str]]) -> WorkerStatus:
    words, now, wall = ledger.words, time.monotonic_ns(), time.time_ns()
    names = routes.get(ledger.generation, ())
    tasks = tuple(_task(entry, names, now, wall) for entry in ledger.used() if entry.state is State.STARTED)
    counts = {name: words[word] for name, word in COUNTERS.items()}
    return WorkerStatus(
        ledger.slot,
        words[Word.PID],
        ledger.generation,
        _state(ledger),
        tasks,
        counts,
    )


def _state(ledger: Ledger) -> str:
    """What the supervisor holds of a worker, but for what the worker knows first: that it leaves.

    One of an earlier start has no supervisor that holds anything of it but that it hangs.
    """
    phase, state = ledger.words[Word.PHASE], state_of(ledger.words[Word.WORKER_STATE])
    if state is WorkerState.HUNG:
        return str(state.value)
    if phase == Phase.LEAVING:
        return WorkerState.LEAVING.value
    if state is not None:
        return str(state.value)
    return str((WorkerState.SERVING if phase == Phase.SERVING else WorkerState.STARTING).value)


def _task(entry: Entry, names: Sequence[str], now: int, wall: int) -> TaskStatus:
    route = names[entry.route] if entry.route < len(names) else ""
    state = "overdue" if 0 < entry.deadline_ns <= now else "running"
    deadline = render(wall + entry.deadline_ns - now)
    return TaskStatus(entry.id, entry.type, route, state, max(now - entry.started_ns, 0) / 1e9, deadline)


def settings_of(directory: Path) -> Path | None:
    """The file of settings on which the host of the directory runs; None if that cannot be told."""
    state = state_file.read(directory)
    return Path(state.settings) if state is not None and state.settings else None


def reload(directory: Path, timeout: float, settings: Path | None = None) -> tuple[bool, str]:
    """Asks for a reload: whether it was taken, and why (not). A host that runs on another file than `settings` refuses.

    :raises NotRunning: nobody listens. :raises TimeoutError: no decision within `timeout` seconds.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(str(directory / _CONTROL))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no ajhost runs on {directory}") from error
        sock.sendall(orjson.dumps({"ask": "reload", "settings": settings}, default=str) + b"\n")
        with sock.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise NotRunning("the host ended before it decided")
    body = orjson.loads(line)
    return bool(body["taken"]), str(body["text"])


def _holder(directory: Path) -> int:
    try:
        text = runtime_directory.read_file(directory, LOCK, 32).decode().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return 0
    return int(text) if text.isdigit() else 0
