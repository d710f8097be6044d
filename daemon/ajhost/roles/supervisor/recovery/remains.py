"""What is left of a process that cannot answer: its ledger, its connection, and the facts about it."""

from __future__ import annotations

import socket
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ajhost.adapters.linux.ledger_file import MappedLedger
from ajhost.core.recovery_rules import USUALLY, Fact
from ajhost.ledger.layout import SUPERVISOR_SLOT, State, Word
from ajhost.ledger.view import Ledger
from ajhost.protocol.frames import reply_of


@dataclass(slots=True, eq=False)
class Remains:
    """`how`: why the process cannot answer, in words. `sock`: the connection that its ledger's positions belong to."""

    ledger: MappedLedger
    facts: Fact = USUALLY
    how: str = "it was killed"
    sock: socket.socket | None = None
    copied: AbstractSet[bytes] = frozenset()
    """Reply subjects of which a newer ledger has a copy: an earlier recovery died before it revoked the original."""
    places: set[int] = field(default_factory=set)
    """Where in the file the frames of entries lie: they are not taken again from the receive buffer."""
    reading_begun: bool = False
    """Whether its connection is being read, or has been: that happens once."""
    settled: bool = False
    """Whether the procedure is through, so that the ledger may be removed when its last answer has left."""
    answered: int = 0
    requeued: int = 0
    """What became of its requests."""

    def __str__(self) -> str:
        whose = "an earlier start's " if Fact.SUPERVISOR_GONE in self.facts else ""
        slot = self.ledger.slot
        role = "supervisor" if slot == SUPERVISOR_SLOT else f"worker {slot}"
        return f"{whose}{role} (pid {self.ledger.words[Word.PID]})"

    @property
    def stopped(self) -> bool:
        """Whether the process goes on afterwards."""
        return Fact.OWNER_STOPPED in self.facts


def order(ledger: Ledger) -> tuple[int, int]:
    """Older ledgers before newer ones, and supervisors' ledgers, into which requests are copied, after all others."""
    return ledger.slot, ledger.serial


class Copies:
    """Where requests of earlier starts wait, by their reply subjects: in the newest ledger (`order`) that has them.

    A supervisor that was killed between copying a request and revoking the original leaves both; the copy counts.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[int, int]] = {}

    def add(self, ledger: Ledger) -> None:
        """Takes the reply subjects of requests that wait in a ledger, or were copied from there."""
        place = order(ledger)
        waiting = (e for e in ledger.used() if e.state in (State.RECEIVED, State.QUEUED))
        for reply in {reply_of(ledger.frame(entry.index)) for entry in waiting} - {b""}:
            self._newest[reply] = max(place, self._newest.get(reply, place))

    def in_later_ledgers(self, ledger: Ledger) -> frozenset[bytes]:
        """The reply subjects that have a copy in a newer ledger than this."""
        here = order(ledger)
        return frozenset(reply for reply, place in self._newest.items() if place > here)

    def clear(self) -> None:
        self._newest.clear()
