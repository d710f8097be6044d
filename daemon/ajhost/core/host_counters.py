"""Counters since the supervisor's start, and a snapshot of the host, from which the metrics are made."""

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
    """The connections of a slot's processes to NATS, those that are gone included in the counts.

    `reason` says why it is not connected: the name of a `Reason` in lower case. `reconnects` are counted by the reason
    for which the connection before had ended.
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
    """What the supervisor counts, and the counts of dead workers.

    `absorb` is called in the turn of the loop in which a dead worker is removed from the living ones, so no sum over
    both ever decreases.
    """

    deaths: int = 0
    replaced: int = 0
    requeued: int = 0
    answered: int = 0
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
        """The counts of all workers since the supervisor's start."""
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
        """How many requests have come, by route: those that are answered, and those that run or wait.

        They are looked at one after the other, and a request may be missed that is answered in between.
        """
        return self.growing(
            "received",
            {
                route: stats.answered + (running[route] + waiting[route] if route is not None else 0)
                for route, stats in routes.items()
            },
        )

    def growing(self, name: str, counts: Mapping[str | None, int]) -> dict[str | None, int]:
        """No number is less than the last time: Prometheus takes one that is less for a new beginning, at 0.

        Tasks that completed, or were terminated, are taken back whose reply the server refused, a moment after they
        were counted: one that was shown in that moment stays in the number until others have ended so.
        """
        for route, count in counts.items():
            self._most[name, route] = max(count, self._most.get((name, route), 0))
        return {route: self._most[name, route] for route in counts}

    def connections(self, slots: int, living: Iterable[Ledger]) -> dict[int, ConnectionStats]:
        """The connections of each slot that is configured."""
        sums = {slot: self._dead_connections.get(slot, ConnectionStats()) for slot in range(slots)}
        for ledger in living:
            if ledger.slot in sums:
                sums[ledger.slot] += connection_stats(ledger)
        return sums


@dataclass(frozen=True, slots=True)
class HostStats:
    """One look at a host.

    `counts` are those of `COUNTERS`; `faults` count by the job of supervision that failed; `connections` are by slot,
    or `supervisor`; `workers` counts by state; `resident` is bytes by slot; `routes` and all after it are
    by route, None for requests without one.
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
    """The counters in a ledger's header, by name."""
    return {name: ledger.words[word] for name, word in COUNTERS.items()}


def connection_stats(ledger: Ledger) -> ConnectionStats:
    """The connection of a living process."""
    status = ledger.connection()
    reason = "" if status.subscribed else status.reason.name.lower()
    return ConnectionStats(status.subscribed, *_connection_counts(ledger), reason)


def _connection_counts(ledger: Ledger) -> tuple[Mapping[str, int], int]:
    counts = {reason.name.lower(): ledger.words[Word.RECONNECTS_BY + reason] for reason in Reason}
    return {name: count for name, count in counts.items() if count}, ledger.words[Word.REFUSED_REPLIES]


@dataclass(slots=True)
class Held:
    """The requests that a ledger holds: by route, those that run, and those that wait for somebody who starts them.

    The route of one that waits is None until it has been read.
    """

    started: list[Entry] = field(default_factory=list)
    running: Counter[str | None] = field(default_factory=Counter)
    waiting: Counter[str | None] = field(default_factory=Counter)
    left: int = 0
    """All that have no answer yet, or one that has not left."""


def held_in(ledger: Ledger, routes: Sequence[str] = ()) -> Held:
    """Looks once at each entry of a ledger; `routes` are those of its generation."""
    held = Held()
    for entry in ledger.used():
        state = entry.state
        if state is State.STARTED:
            held.started.append(entry)
            held.running[_route(entry, routes)] += 1
            held.left += 1
        elif state is State.ANSWERED:
            held.left += 1
        elif _waits(entry):
            held.waiting[_route(entry, routes) if entry.deadline_ns else None] += 1
            held.left += 1
    return held


def _waits(entry: Entry) -> bool:
    return entry.state in (State.RECEIVED, State.QUEUED) and not entry.revoked and not entry.claimed


def _route(entry: Entry, routes: Sequence[str]) -> str | None:
    return routes[entry.route] if entry.route < len(routes) else None
