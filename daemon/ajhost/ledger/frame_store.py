"""Finds room for the frames of waiting requests in a ledger's frame store.

Only the bytes are shared; the owner has the list of free ranges for itself. It takes the first range that fits, from
the low end, so that a quiet host touches few of the reserved pages.
"""

from __future__ import annotations

_GRAIN = 64


class FrameStore:
    """Hands out ranges of `[start, start + size)`; offsets and sizes are bytes, rounded up to 64."""

    __slots__ = ("_free", "_sizes")

    def __init__(self, start: int, size: int) -> None:
        self._free: list[tuple[int, int]] = [(start, size)]
        self._sizes: dict[int, int] = {}

    def allocate(self, size: int) -> int | None:
        """Returns the offset of a free range of `size` bytes, or None when no range is large enough."""
        wanted = (size + _GRAIN - 1) // _GRAIN * _GRAIN
        for place, (offset, length) in enumerate(self._free):
            if length >= wanted:
                if length == wanted:
                    del self._free[place]
                else:
                    self._free[place] = (offset + wanted, length - wanted)
                self._sizes[offset] = wanted
                return offset
        return None

    def release(self, offset: int) -> int:
        """Frees a range and joins it with its free neighbours. Returns its size in bytes."""
        size = released = self._sizes.pop(offset)
        free = self._free
        place = next((i for i, (other, _) in enumerate(free) if other > offset), len(free))
        if place < len(free) and offset + size == free[place][0]:
            size += free.pop(place)[1]
        if place and free[place - 1][0] + free[place - 1][1] == offset:
            before, length = free[place - 1]
            free[place - 1] = (before, length + size)
        else:
            free.insert(place, (offset, size))
        return released
