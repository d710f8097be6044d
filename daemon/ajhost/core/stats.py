"""Counters since the supervisor's start, and a snapshot of the host, from which the metrics are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ajhost.ledger.layout import COUNTERS, State
from ajhost.ledger.view import Ledger


@dataclass(slots=True)
class Counters:
    """What the supervisor counts, and the counts of dead workers.

    `absorb` is called in the turn of the loop in which a dead worker is removed from the living ones, so no sum over
    both ever decreases.
    """

    deaths: int = 0
    requeued: int = 0
    answered: int = 0
    reloads_taken: int = 0
    reloads_rejected: int = 0
    _dead: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    def absorb(self, ledger: Ledger) -> None:
        """Adds the counts of a dead worker."""
        for name, count in counts_of(ledger).items():
            self._dead[name] += count

    def with_living(self, living: list[Ledger]) -> dict[str, int]:
        """The counts of all workers since the supervisor's start."""
        sums = dict(self._dead)
        for ledger in living:
            for name, count in counts_of(ledger).items():
                sums[name] += count
        return sums


@dataclass(frozen=True, slots=True)
class HostStats:
    """One look at a host. `counts` are those of `COUNTERS`; `resident` is bytes by slot; `workers` counts by state."""

    counts: Mapping[str, int]
    deaths: int
    requeued: int
    answered: int
    last_resort: int
    reloads: Mapping[str, int]
    workers: Mapping[str, int]
    slots: int
    running: int
    waiting: int
    generation: int
    resident: Mapping[int, int]


def counts_of(ledger: Ledger) -> dict[str, int]:
    """The counters in a ledger's header, by name."""
    return {name: ledger.words[word] for name, word in COUNTERS.items()}


def waiting_in(ledger: Ledger) -> int:
    """How many requests in a ledger are not started, revoked or claimed."""
    return sum(
        entry.state in (State.RECEIVED, State.QUEUED) and not entry.revoked and not entry.claimed
        for entry in ledger.used()
    )
