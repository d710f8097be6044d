"""What a host has done since its supervisor started, and how it stands: what metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ajhost.ledger.layout import COUNTERS, State
from ajhost.ledger.view import Ledger


@dataclass(slots=True)
class Counters:
    """What the supervisor counts by itself, and what workers had counted that are gone.

    `absorb` takes a ledger in the same turn of the loop in which its worker stops being one of the living, so no sum
    over both ever goes back.
    """

    deaths: int = 0
    requeued: int = 0
    answered: int = 0
    reloads_taken: int = 0
    reloads_rejected: int = 0
    _dead: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))

    def absorb(self, ledger: Ledger) -> None:
        """Keeps the counts of a worker that is gone."""
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
    """How many requests wait in a ledger for somebody who starts them."""
    return sum(
        entry.state in (State.RECEIVED, State.QUEUED) and not entry.revoked and not entry.claimed
        for entry in ledger.used()
    )
