"""What a process that cannot answer leaves to recovery: its ledger, its connection, and the facts about it (`Remains`).
`RetiredLedgers` keeps a dead one's ledger until its last answer has left, and answers at the deadlines of what waits in
it.
"""

from __future__ import annotations

import socket
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import MappedLedger
from ajhost.core.recovery_rules import USUALLY, Fact, overdue
from ajhost.core.timings import FAR_FUTURE_NS
from ajhost.ledger.layout import SUPERVISOR_SLOT, State, Word
from ajhost.protocol.outcome import Failed
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.supervisor.standby import Standby

_NOT_STARTED = FailureReason.DEADLINE_EXCEEDED.text("no worker became free in time")
_NOT_CONFIRMED = FailureReason.WORKER_DIED.text("and its server does not say whether it has the reply")


@dataclass(slots=True, eq=False)
class Remains:
    """`how`: why the process cannot answer, in words. `sock`: the connection that its ledger's positions belong to."""

    ledger: MappedLedger
    facts: Fact = USUALLY
    how: str = "it was killed"
    sock: socket.socket | None = None
    copied: AbstractSet[bytes] = frozenset()
    """Reply subjects of requests that a newer ledger has too: a supervisor died before it revoked the original."""
    places: set[int] = field(default_factory=set)
    """File offsets of the frames of entries. Those in the receive buffer are not requeued from there again."""
    reading_begun: bool = False
    """Whether the reading of its connection has begun. It is read once."""
    settled: bool = False
    """Whether the procedure has ended. The ledger may be removed when its last answer has left."""
    answered: int = 0
    requeued: int = 0
    """How many of its requests were answered, and how many requeued."""

    def __str__(self) -> str:
        whose = "an earlier start's " if Fact.SUPERVISOR_GONE in self.facts else ""
        slot = self.ledger.slot
        role = "supervisor" if slot == SUPERVISOR_SLOT else f"worker {slot}"
        return f"{whose}{role} (pid {self.ledger.words[Word.PID]})"

    @property
    def stopped(self) -> bool:
        """Whether the process is only stopped, and goes on afterwards."""
        return Fact.OWNER_STOPPED in self.facts


class RetiredLedgers:
    def __init__(self, directory: Path, standby: Standby, guard: FaultGuard) -> None:
        self._directory, self._standby, self._guard = directory, standby, guard
        self._remains: dict[int, Remains] = {}

    def add(self, remains: Remains) -> None:
        """Takes a dead process's ledger. Call it when its recovery begins, since that may wait long for a server."""
        self._remains[remains.ledger.serial] = remains

    def __contains__(self, remains: Remains) -> bool:
        return self._remains.get(remains.ledger.serial) is remains

    def tick(self, now_ns: int) -> None:
        """Answers what is past its deadline, and removes ledgers that are settled."""
        for one in list(self._remains.values()):
            with self._guard("settling a dead process's ledger"):
                self._settle(one, now_ns)

    def _settle(self, one: Remains, now_ns: int) -> None:
        ledger = one.ledger
        for entry in overdue(ledger, now_ns):
            text = _NOT_CONFIRMED if entry.state is State.SENT else _NOT_STARTED
            self._standby.answer_for(ledger, entry, Failed(text), stands_still=True)
        if not one.settled or self._standby.transport.out.unsent:
            return  # the file is removed only when the kernel has the answers for its requests
        for index in ledger.settled_entries():
            ledger.free_entry(index)
        if not ledger.in_use():
            ledger_file.remove(self._directory, ledger.serial)
            ledger.close()
            del self._remains[ledger.serial]

    def reject_waiting(self, text: str) -> None:
        """Answers with `text` all that is not settled: the host stops."""
        for one in self._remains.values():
            for entry in overdue(one.ledger, FAR_FUTURE_NS):
                self._standby.answer_for(one.ledger, entry, Failed(text), stands_still=True)

    @property
    def ledgers(self) -> list[MappedLedger]:
        return [one.ledger for one in self._remains.values()]
