"""A cache of other processes' mapped ledgers."""

from __future__ import annotations

from pathlib import Path

from ajhost.adapters.linux.ledger_file import MappedLedger, path_of
from ajhost.ledger.layout import LedgerError
from ajhost.ledger.view import Ledger


class LedgerCache:
    """Other processes' ledgers, mapped when a token first names them.

    `own` is this process's ledger, which tokens name as well. It must never be opened a second time: closing any
    descriptor of a file drops this process's record lock on it (fcntl(2)), and a ledger without a lock counts as dead.
    """

    def __init__(
        self, directory: Path, own: Ledger | None = None, limit: int = 64, kind: type[MappedLedger] = MappedLedger
    ) -> None:
        self._directory = directory
        self._own = own
        self._limit, self._kind = limit, kind
        self._mapped: dict[int, MappedLedger] = {}

    def get(self, serial: int) -> Ledger | None:
        """Returns the ledger of a process; None when its file is gone: every token that names it is stale."""
        if self._own is not None and serial == self._own.serial:
            return self._own
        ledger = self._mapped.get(serial)
        if ledger is None:
            try:
                ledger = self._kind(self._directory, serial)
            except (FileNotFoundError, LedgerError):
                return None
            if len(self._mapped) >= self._limit:
                del self._mapped[next(iter(self._mapped))]  # unmapped when its last user drops it
            self._mapped[serial] = ledger
        return ledger

    def prune(self) -> None:
        """Unmaps files that were removed. Call it about once a second."""
        for serial in [s for s in self._mapped if not path_of(self._directory, s).exists()]:
            del self._mapped[serial]
