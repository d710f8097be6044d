"""Retired ledgers: of dead processes, kept until their last request is settled and its answer has left."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import MappedLedger
from ajhost.core.recovery import overdue
from ajhost.core.timings import FAR_FUTURE_NS
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.supervisor.recovery.takeover import answer_for, is_complete
from ajhost.roles.supervisor.standby import Standby


class RetiredLedgers:
    """Ledgers whose owners are dead: kept until their last request is settled and its answer has left, then removed."""

    def __init__(self, directory: Path, standby: Standby, ledgers: LedgerCache, guard: FaultGuard) -> None:
        self._directory, self._standby, self._ledgers, self.guard = directory, standby, ledgers, guard
        self._files: dict[int, MappedLedger] = {}
        self.recovery_lock = asyncio.Lock()
        """Held while earlier starts are recovered, which needs the files that are here until the end."""

    def add(self, ledger: MappedLedger) -> None:
        """Takes a dead process's ledger, of which only QUEUED requests are not settled."""
        self._files[ledger.serial] = ledger

    def tick(self, now_ns: int) -> None:
        """Answers what waits past its deadline, and removes ledgers that are settled."""
        for ledger in self.ledgers:
            with self.guard("settling a dead process's ledger"):
                self._settle(ledger, now_ns)

    def _settle(self, ledger: MappedLedger, now_ns: int) -> None:
        for entry in overdue(ledger, now_ns):
            answer_for(
                ledger,
                entry,
                self._standby,
                FailureReason.DEADLINE_EXCEEDED.text("no worker became free in time"),
            )
        if self.recovery_lock.locked() or self._standby.transport.out.unsent:
            return  # the answers for its requests must have left before the file may be removed
        for index in ledger.settled_entries():
            ledger.free_entry(index)
        if is_complete(ledger) and not ledger.in_use():
            ledger_file.remove(self._directory, ledger.serial)
            ledger.close()
            del self._files[ledger.serial]

    def reject_waiting(self, text: str) -> None:
        """The host stops: answers with `text` what is not started."""
        for ledger in self._files.values():
            for entry in overdue(ledger, FAR_FUTURE_NS):
                answer_for(ledger, entry, self._standby, text)

    def has(self, ledger: MappedLedger) -> bool:
        """Whether a ledger is retired, and still mapped."""
        return self._files.get(ledger.serial) is ledger

    @property
    def ledgers(self) -> list[MappedLedger]:
        """The retired ledgers."""
        return list(self._files.values())

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self._files
