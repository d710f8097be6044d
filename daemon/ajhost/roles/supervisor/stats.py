"""The figures of a host, read from the shared ledgers when somebody asks: no message goes to a worker."""

from __future__ import annotations

import contextlib
from collections import Counter

from ajhost.adapters.linux import processes
from ajhost.core.fleet import WorkerState
from ajhost.core.stats import HostStats, waiting_in
from ajhost.ledger.view import Ledger
from ajhost.roles.supervisor.workers import WorkerPool


def snapshot(pool: WorkerPool, others: list[Ledger], last_resort: int) -> HostStats:
    """The figures now. `others`: ledgers besides the workers' in which requests wait."""
    counters, members = pool.counters, list(pool.members.values())
    living: list[Ledger] = [m.ledger for m in members]
    states = Counter(m.state.value for m in pool.fleet.members.values())
    resident: Counter[int] = Counter()
    for member in members:
        if member.pid:
            with contextlib.suppress(OSError):  # it died in this moment
                resident[member.slot] += processes.resident_bytes(member.pid)
    return HostStats(
        counts=counters.with_living(living),
        deaths=counters.deaths,
        requeued=counters.requeued,
        answered=counters.answered,
        last_resort=last_resort,
        reloads={"taken": counters.reloads_taken, "rejected": counters.reloads_rejected},
        workers={standing.value: states[standing.value] for standing in WorkerState},
        slots=pool.fleet.count,
        running=sum(ledger.running() for ledger in living),
        waiting=sum(waiting_in(ledger) for ledger in [*living, *others]),
        generation=pool.fleet.generation,
        resident=resident,
    )
