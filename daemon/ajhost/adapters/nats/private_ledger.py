"""A ledger in private memory, for a connection that no other process takes over."""

from __future__ import annotations

import mmap

from ajhost.ledger.layout import Geometry, Identity, create
from ajhost.ledger.receive_buffer import READ_SIZE
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.server_info import LONGEST_INFO

_ENTRIES = 8


def private_ledger(frame: int = LONGEST_INFO) -> LedgerWriter:
    """Makes a ledger with room for a frame of `frame` bytes."""
    geometry = Geometry(_ENTRIES, (2 * frame + 4 * READ_SIZE + 4095) & ~4095, 1 << 16)
    memory = memoryview(mmap.mmap(-1, geometry.size))
    create(memory, geometry, Identity(1, 0, 0))
    return LedgerWriter(memory)
