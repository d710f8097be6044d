"""Reads the statistics of a host for `/metrics`, on request, from ledgers, statistics files and /proc: workers are not
asked. Counts workers by state, `disconnected` too. `adapters/prometheus.py` has the metrics' names.
"""

from __future__ import annotations

import contextlib
from collections import Counter

from ajhost.adapters.linux import proc
from ajhost.adapters.linux.stats_files import DIRECTORY, read_all
from ajhost.core.fleet import WorkerState
from ajhost.core.host_counters import ConnectionStats, HostStats, connection_stats, held_in
from ajhost.core.route_stats import RouteStats, clip
from ajhost.core.status_report import DISCONNECTED
from ajhost.ledger.view import Ledger
from ajhost.roles.supervisor.waiting_phase import SupervisorPhase
from ajhost.roles.supervisor.worker_pool import WorkerPool


def snapshot(pool: WorkerPool, phase: SupervisorPhase, *, ready: bool) -> HostStats:
    counters, slots = pool.counters, pool.fleet.count
    living: list[Ledger] = [worker.ledger for worker in pool.workers.values()]
    connections = {str(slot): stats for slot, stats in counters.connections(slots, living).items()}
    own = next(iter(phase.ledgers), None)
    connections["supervisor"] = ConnectionStats() if own is None else connection_stats(own)
    generations = {number: generation.routes for number, generation in pool.generations.items()}
    known: dict[str | None, int] = {None: 0}
    for names in generations.values():
        known.update(dict.fromkeys(names, 0))
    counted = read_all(pool.runtime / DIRECTORY)
    ledgers = (*living, *phase.ledgers, *phase.retired)
    held = [held_in(ledger, generations.get(ledger.generation, ())) for ledger in ledgers]
    running = sum((found.running for found in held[: len(living)]), Counter[str | None]())
    waiting = sum((found.waiting for found in held), Counter[str | None]())
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
        last_resort=counters.last_resort,
        reloads={"taken": counters.reloads_taken, "rejected": counters.reloads_rejected},
        faults=dict(pool.guard.failures),
        workers=_states(pool),
        slots=slots,
        generation=pool.fleet.generation,
        connections=connections,
        resident=_resident(pool),
        routes=routes,
        received=counters.received(routes, now_running, now_waiting),
        completed=counters.growing("completed", {r: stats.completed for r, stats in routes.items()}),
        terminated=counters.growing("terminated", {r: stats.terminated for r, stats in routes.items()}),
        running=now_running,
        waiting=now_waiting,
    )


def _resident(pool: WorkerPool) -> Counter[int]:
    """Returns resident bytes by slot."""
    resident: Counter[int] = Counter()
    for worker in pool.workers.values():
        if worker.pid:
            with contextlib.suppress(OSError):  # it has just died
                resident[worker.slot] += proc.resident_bytes(worker.pid)
    return resident


def _states(pool: WorkerPool) -> dict[str, int]:
    """Counts workers by state. One that serves but is not subscribed counts as disconnected."""
    counts = dict.fromkeys([*(state.value for state in WorkerState), DISCONNECTED], 0)
    for serial, known in pool.fleet.members.items():
        worker = pool.workers.get(serial)
        serves = known.state is WorkerState.SERVING
        lost = serves and worker is not None and not worker.ledger.connection().subscribed
        counts[DISCONNECTED if lost else known.state.value] += 1
    return counts
