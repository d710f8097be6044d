"""What a process that cannot answer leaves to recovery: its ledger, its connection, and the facts about it."""

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


def order(ledger: Ledger) -> tuple[int, int]:
    """Sort key: by slot, older ledgers first. Supervisors' ledgers, into which requests are copied, come last."""
    return ledger.slot, ledger.serial


class Copies:
    """The newest ledger (`order`) in which each request of earlier starts waits, by its reply subject.

    A supervisor that was killed between copying a request and revoking the original leaves both; the copy counts.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[int, int]] = {}

    def add(self, ledger: Ledger) -> None:
        """Adds the reply subjects of a ledger's requests that wait there, also of those that are revoked or claimed."""
        place = order(ledger)
        waiting = (e for e in ledger.used() if e.state in (State.RECEIVED, State.QUEUED))
        for reply in {reply_of(ledger.frame(entry.index)) for entry in waiting} - {b""}:
            self._newest[reply] = max(place, self._newest.get(reply, place))

    def in_later_ledgers(self, ledger: Ledger) -> frozenset[bytes]:
        """Returns the reply subjects that a newer ledger than this one has."""
        here = order(ledger)
        return frozenset(reply for reply, place in self._newest.items() if place > here)

    def clear(self) -> None:
        self._newest.clear()
