"""The figures of a host, read from the shared ledgers when somebody asks: no message goes to a worker."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

from ajhost.adapters.linux import proc
from ajhost.adapters.linux.stats_files import DIRECTORY, read_all
from ajhost.core.fleet import WorkerState
from ajhost.core.host_counters import ConnectionStats, HostStats, connection_stats, held_in
from ajhost.core.route_stats import RouteStats, clip
from ajhost.core.status_report import DISCONNECTED
from ajhost.ledger.view import Ledger
from ajhost.roles.supervisor.worker_pool import WorkerPool


def snapshot(
    pool: WorkerPool, own: Sequence[Ledger], retired: Sequence[Ledger], subscriptions: int, *, ready: bool
) -> HostStats:
    """The statistics now. `own`: the supervisor's ledger, once it is open. `retired`: those of dead workers, in which
    requests may wait. `subscriptions`: of the last resort.
    """
    counters, members = pool.counters, list(pool.members.values())
    living: list[Ledger] = [m.ledger for m in members]
    resident: Counter[int] = Counter()
    for member in members:
        if member.pid:
            with contextlib.suppress(OSError):  # it died in this moment
                resident[member.slot] += proc.resident_bytes(member.pid)
    slots = pool.fleet.count
    connections = {str(s): stats for s, stats in counters.connections(slots, living).items()}
    connections["supervisor"] = connection_stats(own[0]) if own else ConnectionStats()
    generations = {number: generation.routes for number, generation in pool.generations.items()}
    known: dict[str | None, int] = {None: 0}
    for names in generations.values():
        known.update(dict.fromkeys(names, 0))
    counted = read_all(pool.runtime / DIRECTORY)
    running: Counter[str | None] = Counter()
    waiting: Counter[str | None] = Counter()
    for ledgers, may_run in ((living, True), ((*own, *retired), False)):
        for ledger in ledgers:
            held = held_in(ledger, generations.get(ledger.generation, ()))
            waiting += held.waiting
            if may_run:
                running += held.running
    routes = {name: counted.get(name if name is None else clip(name), RouteStats()) for name in known}
    now_running, now_waiting = {**known, **running}, {**known, **waiting}
    return HostStats(
        ready=ready,
        draining=pool.fleet.draining,
        counts=counters.with_living(living),
        deaths=counters.deaths,
        replaced=counters.replaced,
        requeued=counters.requeued,
        answered=counters.answered,
        last_resort=subscriptions,
        reloads={"taken": counters.reloads_taken, "rejected": counters.reloads_rejected},
        faults=dict(pool.guard.failures),
        workers=_states(pool),
        slots=slots,
        generation=pool.fleet.generation,
        connections=connections,
        resident=resident,
        routes=routes,
        received=counters.received(routes, now_running, now_waiting),
        completed=counters.growing("completed", {r: stats.completed for r, stats in routes.items()}),
        terminated=counters.growing("terminated", {r: stats.terminated for r, stats in routes.items()}),
        running=now_running,
        waiting=now_waiting,
    )


def _states(pool: WorkerPool) -> dict[str, int]:
    """How many workers are in which state; one that would serve and is not subscribed is disconnected."""
    counts = dict.fromkeys([*(state.value for state in WorkerState), DISCONNECTED], 0)
    for serial, known in pool.fleet.members.items():
        member = pool.members.get(serial)
        serves = known.state is WorkerState.SERVING
        lost = serves and member is not None and not member.ledger.connection().subscribed
        counts[DISCONNECTED if lost else known.state.value] += 1
    return counts
