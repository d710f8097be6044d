"""Pages of zeros are given back to the kernel."""

from __future__ import annotations

import ctypes
import mmap

from ajhost.adapters.linux.memory import release_zero_pages

PAGE = mmap.PAGESIZE


def resident(start: int, size: int) -> int:
    """How many pages of a mapping are in memory (mincore(2))."""
    states = (ctypes.c_ubyte * (size // PAGE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), states) == 0
    return sum(state & 1 for state in states)


def test_a_page_of_zeros_is_released_and_reads_as_zeros_and_any_other_page_stays() -> None:
    with mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(8 * PAGE))
        memory[3 * PAGE + 5] = 7
        place = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(place)
        assert resident(start, 8 * PAGE) == 8
        release_zero_pages(start + 1, 8 * PAGE - 2)  # whole pages only: neither the first nor the last
        assert resident(start, 8 * PAGE) == 3
        assert memory[:] == bytes(3 * PAGE + 5) + b"\7" + bytes(5 * PAGE - 6)
        del place
