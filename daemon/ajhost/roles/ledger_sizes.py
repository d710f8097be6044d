"""Computes how large ledgers are, and for a check whether the runtime directory has room for them."""

from __future__ import annotations

from pathlib import Path

from ajhost.ledger.layout import Geometry, geometry_for
from ajhost.settings.sections import WorkerSettings

HELD_BY_STANDBY = 2048
"""Requests that the supervisor can hold: of a dead worker's receive buffer and socket, and of the last resort."""
MAX_PAYLOAD = 1 << 20
"""Bytes; a NATS server's default, which only a connection could correct."""
_OTHER_FILES = 1 << 20
"""Bytes of statistics, recent attempts and the like."""


def worker_geometry(workers: WorkerSettings, max_payload: int = MAX_PAYLOAD) -> Geometry:
    return geometry_for(workers.concurrency + workers.backlog, max_payload)


def standby_geometry(max_payload: int = MAX_PAYLOAD) -> Geometry:
    return geometry_for(HELD_BY_STANDBY, max_payload)


def told_at_start(workers: WorkerSettings, geometry: Geometry, directory: Path) -> str:
    """Returns what the log says of the workers' ledgers."""
    more = (geometry.size - geometry.prepared_size) >> 20
    large = f", and up to {more} MiB more while they hold tasks of over 1 MiB" if more else ""
    return f"{workers.count} workers take {_mib(geometry.prepared_size)} MiB each of {directory}{large}"


def lacking(workers: WorkerSettings, place: Path, free: int) -> str | None:
    """Returns what a start in this directory lacks, which has `free` bytes; None if nothing."""
    each = worker_geometry(workers).prepared_size
    own = standby_geometry().prepared_size + _OTHER_FILES
    needed = workers.count * each + own
    if free >= needed:
        return None
    return (
        f"{free >> 20} MiB are free in {place}, {needed >> 20} MiB are needed: {_mib(each)} for each of "
        f"{workers.count} workers (workers.backlog), {_mib(own)} for the host itself"
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"
