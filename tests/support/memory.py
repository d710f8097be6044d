"""Ledgers that no file holds."""

from __future__ import annotations

from ajhost.core.layout import Geometry, Identity, create
from ajhost.core.own_ledger import OwnLedger

SMALL = Geometry(8, 4096, 8192)


def ledger_in_memory(geometry: Geometry = SMALL, serial: int = 7) -> OwnLedger:
    """A new ledger, as its owner has it."""
    view = memoryview(bytearray(geometry.size))
    create(view, geometry, Identity(serial, 0, 1))
    return OwnLedger(view)
