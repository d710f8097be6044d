"""Collects garbage by what cycles hold: memory and descriptors, which Python's own thresholds do not count.

Python collects after a number of new objects. A task that leaves 20 MB, or an open socket, in a cycle makes a few
objects only, so memory or descriptors can run out before Python collects.
"""

from __future__ import annotations

import gc
import math
import os
import time
from typing import NamedTuple, Self

from ajhost.adapters.linux import memory
from ajhost.core.timings import COLLECT_AGAIN, COLLECT_AGAIN_LONGEST

_THRESHOLDS = (20_000, 20, 20)
"""A task makes some 20 objects that reference counting frees, so Python's default of 700 would collect every 35 tasks
in vain. Memory and descriptors are watched here instead.
"""
_MEMORY_GAINED = 32 << 20
"""Bytes of resident memory."""
_DESCRIPTORS_GAINED = 48
_SHARE = 20
"""After a collection in vain, the next one waits for this many times its duration."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EXHAUSTED = 1 << 30


class _Usage(NamedTuple):
    """What cycles may hold: resident bytes, and the lowest free descriptor, which grows with the open ones."""

    memory: int
    descriptors: int

    @classmethod
    def now(cls) -> Self:
        try:
            statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # no descriptor is free
            return cls(0, _EXHAUSTED)
        try:
            return cls(int(os.read(statm, 128).split()[1]) * _PAGE, statm)
        finally:
            os.close(statm)

    def gained(self, before: _Usage, part: int = 1) -> bool:
        """Whether usage has grown since `before` by what is worth a collection, or by the `part`th of that."""
        memory, descriptors = self.memory - before.memory, self.descriptors - before.descriptors
        return memory >= _MEMORY_GAINED // part or descriptors >= _DESCRIPTORS_GAINED // part

    def lower(self, other: _Usage) -> _Usage:
        return _Usage(min(self.memory, other.memory), min(self.descriptors, other.descriptors))


class Collector:
    """Collects when memory or descriptors have grown since the last collection. Called at each heartbeat.

    What running tasks hold during a collection may be garbage a moment later, without any growth. So while usage is
    well above the lowest so far, it collects a few times more, with growing pauses.
    """

    def __init__(self) -> None:
        gc.set_threshold(*_THRESHOLDS)
        memory.use_few_arenas()
        self._seen = self._after = self._least = _Usage.now()
        """The usage when last looked at, the lowest since the last collection, and the lowest ever."""
        self._next = 0.0
        self._again, self._pause = math.inf, COLLECT_AGAIN

    def collect_if_due(self) -> bool:
        """Collects if it is time. Returns whether usage has grown fast since the last call: the next is urgent then."""
        found = _Usage.now()
        fast = found.gained(self._seen, 2)
        self._seen = found
        self._after, self._least = self._after.lower(found), self._least.lower(found)
        now = time.monotonic()
        if grown := found.gained(self._after):
            if now < self._next:
                return fast
            self._pause = COLLECT_AGAIN
        elif now < self._again:
            return fast
        before = self._after
        gc.collect()
        if found.memory - self._least.memory >= _MEMORY_GAINED:
            memory.trim_heap()
        self._seen = self._after = left = _Usage.now()
        if grown and all(n > f - (f - b) // 2 for n, f, b in zip(left, found, before, strict=True)):
            # little was collected: the application still uses it
            self._next = now + (time.monotonic() - now) * _SHARE
        self._again = math.inf
        if left.gained(self._least) and self._pause <= COLLECT_AGAIN_LONGEST:
            self._again, self._pause = now + self._pause, self._pause * 2
        return fast
