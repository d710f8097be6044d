"""The figures of a host, read from the shared ledgers when somebody asks: no message goes to a worker."""

from __future__ import annotations

import contextlib
from collections import Counter

from ajhost.adapters import processes
from ajhost.core.figures import Figures, waiting_in
from ajhost.core.fleet import Standing
from ajhost.core.ledger import Ledger
from ajhost.roles.supervisor.crew import Crew


def look(crew: Crew, others: list[Ledger], last_resort: int) -> Figures:
    """The figures now. `others`: ledgers besides the workers' in which requests wait."""
    tally, members = crew.tally, list(crew.members.values())
    living: list[Ledger] = [m.ledger for m in members]
    states = Counter(m.standing.value for m in crew.fleet.members.values())
    resident: Counter[int] = Counter()
    for member in members:
        if member.pid:
            with contextlib.suppress(OSError):  # it died in this moment
                resident[member.slot] += processes.resident_bytes(member.pid)
    return Figures(
        counts=tally.with_living(living),
        deaths=tally.deaths,
        moved=tally.moved,
        answered=tally.answered,
        last_resort=last_resort,
        reloads={"taken": tally.reloads_taken, "rejected": tally.reloads_rejected},
        workers={standing.value: states[standing.value] for standing in Standing},
        slots=crew.fleet.count,
        running=sum(ledger.running() for ledger in living),
        waiting=sum(waiting_in(ledger) for ledger in [*living, *others]),
        generation=crew.fleet.generation,
        resident=resident,
    )
