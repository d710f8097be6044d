"""Limits the stacks that processes of a host log unasked to one report a minute for each route.

The times are in words of the supervisor's ledger. Two stores at the same moment mean two reports instead of one.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from zlib import crc32

from ajhost.core.timings import STACKS_REPEAT, nanoseconds

WORDS = 64
"""The words are a hash table of the routes; two routes in the same word share one minute."""
_REPEAT_NS = nanoseconds(STACKS_REPEAT)


class StacksGate:
    """The first `WORDS` of `words`: when stacks were last logged, in monotonic nanoseconds."""

    def __init__(self, words: MutableSequence[int] | memoryview) -> None:
        self._words = words

    def take(self, key: str, now_ns: int) -> bool:
        """Whether to log stacks now; if so, no process logs them for `key`, a route or a slot, for a minute."""
        word = crc32(key.encode()) % WORDS
        if 0 <= now_ns - self._words[word] < _REPEAT_NS and self._words[word]:
            return False
        self._words[word] = now_ns
        return True
