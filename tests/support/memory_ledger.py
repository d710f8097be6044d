"""Ledgers that no file holds."""

from __future__ import annotations

from ajhost.ledger.layout import Geometry, Identity, create
from ajhost.ledger.writer import LedgerWriter

SMALL = Geometry(8, 4096, 8192)


def ledger_in_memory(geometry: Geometry = SMALL, serial: int = 7) -> LedgerWriter:
    """A new ledger, as its owner has it."""
    view = memoryview(bytearray(geometry.size))
    create(view, geometry, Identity(serial, 0, 1))
    return LedgerWriter(view)
