"""Counters since the supervisor's start, those of dead workers included, so that no metric goes back; which requests of
a ledger run, wait, or have no answer yet; and the snapshot that `adapters/prometheus.py` renders for `/metrics`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ajhost.core.route_stats import RouteStats
from ajhost.ledger.connection_status import Reason
from ajhost.ledger.layout import COUNTERS, State, Word
from ajhost.ledger.view import Entry, Ledger


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """The NATS connections of a slot's processes; the counts include those of dead processes.

    `reason` is why the slot is not connected: the name of a `Reason` in lower case. `reconnects` are counted by the
    reason for which the previous connection had ended.
    """

    connected: bool = False
    reconnects: Mapping[str, int] = field(default_factory=dict)
    refused_replies: int = 0
    reason: str = ""

    def __add__(self, other: ConnectionStats) -> ConnectionStats:
        return ConnectionStats(
            self.connected or other.connected,
            dict(Counter(self.reconnects) + Counter(other.reconnects)),
            self.refused_replies + other.refused_replies,
            self.reason or other.reason,
        )


@dataclass(slots=True)
class Counters:
    """The supervisor's own counters, and the counters of dead workers.

    The supervisor calls `absorb` in the same turn of its loop in which it removes a dead worker from the living ones,
    so no sum over both ever decreases.
    """

    deaths: int = 0
    replaced: int = 0
    requeued: int = 0
    answered: int = 0
    last_resort: int = 0
    reloads_taken: int = 0
    reloads_rejected: int = 0
    _most: dict[tuple[str, str | None], int] = field(default_factory=dict)
    _dead: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTERS, 0)))
    _dead_connections: dict[int, ConnectionStats] = field(default_factory=dict)

    def absorb(self, ledger: Ledger) -> None:
        """Adds the counts of a dead worker."""
        self._dead.update(counts_of(ledger))
        before = self._dead_connections.get(ledger.slot, ConnectionStats())
        self._dead_connections[ledger.slot] = before + ConnectionStats(False, *_connection_counts(ledger))

    def with_living(self, living: Iterable[Ledger]) -> dict[str, int]:
        """Returns the counts of all workers since the supervisor's start."""
        sums = self._dead.copy()
        for ledger in living:
            sums.update(counts_of(ledger))
        return sums

    def received(
        self,
        routes: Mapping[str | None, RouteStats],
        running: Mapping[str | None, int],
        waiting: Mapping[str | None, int],
    ) -> dict[str | None, int]:
        """Returns how many requests came, by route: the answered ones, and those that run or wait.

        The sources are read one after the other, so a request that is answered in between may be missed.
        """
        return self.growing(
            "received",
            {
                route: stats.answered + (running[route] + waiting[route] if route is not None else 0)
                for route, stats in routes.items()
            },
        )

    def growing(self, name: str, counts: Mapping[str | None, int]) -> dict[str | None, int]:
        """Returns each count, or its highest value so far: Prometheus takes a lower one for a restart from 0.

        A task is counted as completed or terminated, and a moment later is taken back if the server refused its reply.
        A scrape in that moment keeps its number until further tasks have reached it.
        """
        for route, count in counts.items():
            self._most[name, route] = max(count, self._most.get((name, route), 0))
        return {route: self._most[name, route] for route in counts}

    def connections(self, slots: int, living: Iterable[Ledger]) -> dict[int, ConnectionStats]:
        """Returns the connections of each configured slot."""
        sums = {slot: self._dead_connections.get(slot, ConnectionStats()) for slot in range(slots)}
        for ledger in living:
            if ledger.slot in sums:
                sums[ledger.slot] += connection_stats(ledger)
        return sums


@dataclass(frozen=True, slots=True)
class HostStats:
    """A snapshot of a host.

    `counts` are those of `COUNTERS`; `faults` counts by the supervisor's job that failed; `connections` are by slot, or
    `supervisor`; `workers` counts by state; `resident` is bytes by slot; `routes` and all after it are by route, None
    for requests without one.
    """

    ready: bool
    draining: bool
    counts: Mapping[str, int]
    deaths: int
    replaced: int
    requeued: int
    answered: int
    last_resort: int
    reloads: Mapping[str, int]
    faults: Mapping[str, int]
    workers: Mapping[str, int]
    slots: int
    generation: int
    connections: Mapping[str, ConnectionStats]
    resident: Mapping[int, int]
    routes: Mapping[str | None, RouteStats]
    received: Mapping[str | None, int]
    completed: Mapping[str | None, int]
    terminated: Mapping[str | None, int]
    running: Mapping[str | None, int]
    waiting: Mapping[str | None, int]


def counts_of(ledger: Ledger) -> dict[str, int]:
    """Returns the counters of a ledger's header, by name."""
    return {name: ledger.words[word] for name, word in COUNTERS.items()}


def connection_stats(ledger: Ledger) -> ConnectionStats:
    """Returns the connection of a living process."""
    status = ledger.connection()
    reason = "" if status.subscribed else status.reason.name.lower()
    return ConnectionStats(status.subscribed, *_connection_counts(ledger), reason)


def _connection_counts(ledger: Ledger) -> tuple[Mapping[str, int], int]:
    counts = {reason.name.lower(): ledger.words[Word.RECONNECTS_BY + reason] for reason in Reason}
    return {name: count for name, count in counts.items() if count}, ledger.words[Word.REFUSED_REPLIES]


@dataclass(slots=True)
class Held:
    """The requests of a ledger, by route: those that run, and those that wait for a worker to start them.

    The route of a waiting request is None until its owner has read the task.
    """

    started: list[Entry] = field(default_factory=list)
    running: Counter[str | None] = field(default_factory=Counter)
    waiting: Counter[str | None] = field(default_factory=Counter)
    left: int = 0
    """Requests without an answer, and those whose answer has not left."""


def held_in(ledger: Ledger, routes: Sequence[str] = ()) -> Held:
    """Counts the entries of a ledger; `routes` are those of its generation."""
    held = Held()
    for entry in ledger.used():
        state = entry.state
        if state is State.STARTED:
            held.started.append(entry)
            held.running[_route(entry, routes)] += 1
            held.left += 1
        elif state is State.ANSWERED:
            held.left += 1
        elif state in (State.RECEIVED, State.QUEUED) and not entry.revoked and not entry.claimed:
            held.waiting[_route(entry, routes) if entry.deadline_ns else None] += 1
            held.left += 1
    return held


def _route(entry: Entry, routes: Sequence[str]) -> str | None:
    return routes[entry.route] if entry.route < len(routes) else None
