"""What /proc tells, of real processes."""

from __future__ import annotations

import mmap
import os

import pytest

from ajhost.adapters.linux import proc


def test_the_resident_size_is_in_bytes() -> None:
    before = proc.resident_bytes(os.getpid())
    with mmap.mmap(-1, 32 << 20) as block:  # new pages: what the heap gives may have been resident before
        block.write(bytes(32 << 20))
        assert 24 << 20 < proc.resident_bytes(os.getpid()) - before < 64 << 20
    with pytest.raises(OSError, match="2"):
        proc.resident_bytes(2**22 + 1)
