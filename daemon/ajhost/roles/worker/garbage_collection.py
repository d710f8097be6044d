"""Garbage collection by what cycles hold: memory and descriptors, which Python's own thresholds do not count.

Python collects after a number of new objects. A task that leaves 20 MB, or an open socket, in a cycle makes a few
objects only, so memory or descriptors can run out before Python collects.
"""

from __future__ import annotations

import gc
import os
import time

_THRESHOLDS = (20_000, 20, 20)
"""A task makes some 20 objects that reference counting frees, so Python's default of 700 would collect every 35 tasks
in vain. Memory and descriptors are watched here instead."""
_MEMORY_GAINED = 32 << 20
"""Bytes of resident memory."""
_DESCRIPTORS_GAINED = 48
_SHARE = 20
"""After a collection in vain, the next one waits for this many times its duration."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


_STATM = "/proc/self/statm"
_EXHAUSTED = 1 << 30


class Collector:
    """Collects when memory or descriptors have grown since the last collection. Call `look` at each heartbeat."""

    def __init__(self) -> None:
        gc.set_threshold(*_THRESHOLDS)
        self._seen = self._resident, self._descriptor = _measure()
        self._next = 0.0

    def look(self) -> bool:
        """Collects if it is time. Returns whether much was gained since the last look: the next one is urgent then."""
        resident, descriptor = _measure()
        fast = (
            resident - self._seen[0] > _MEMORY_GAINED // 2
            or descriptor - self._seen[1] > _DESCRIPTORS_GAINED // 2
        )
        self._seen = resident, descriptor
        self._resident, self._descriptor = min(self._resident, resident), min(self._descriptor, descriptor)
        memory, descriptors = resident - self._resident, descriptor - self._descriptor
        if memory < _MEMORY_GAINED and descriptors < _DESCRIPTORS_GAINED:
            return fast
        begun = time.monotonic()
        if begun < self._next:
            return fast
        gc.collect()
        self._seen = self._resident, self._descriptor = _measure()
        if self._resident > resident - memory // 2 and self._descriptor > descriptor - descriptors // 2:
            # little was collected: the application still uses it
            self._next = begun + (time.monotonic() - begun) * _SHARE
        return fast


def _measure() -> tuple[int, int]:
    """Resident bytes, and the lowest free descriptor, which grows with the number of open ones."""
    try:
        statm = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no descriptor is free
        return 0, _EXHAUSTED
    try:
        return int(os.read(statm, 128).split()[1]) * _PAGE, statm
    finally:
        os.close(statm)
