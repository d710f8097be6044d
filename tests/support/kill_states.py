"""What a SIGKILL can leave of shared memory: every state that it has between two instructions of our code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.instruction_trace import Instructions

_WORD = 8


def states(memory: bytearray, mark: Callable[[], object], act: Callable[[], None]) -> list[tuple[bytes, Any]]:
    """Runs `act` and returns each distinct `(memory, mark())` that it passes through, the first and last included.

    What one instruction changes beyond a single aligned word is copied byte by byte, so a kill may cut it in two: both
    halves' states are among those returned.
    """
    seen: list[tuple[bytes, Any]] = []

    def look() -> None:
        marked = mark()
        if seen and seen[-1][1] == marked and seen[-1][0] == memory:
            return
        if seen:
            seen.extend((torn, seen[-1][1]) for torn in _torn(seen[-1][0], bytes(memory)))
        seen.append((bytes(memory), marked))

    with Instructions(lambda file: file != __file__, look):
        act()
    look()
    return seen


def _torn(old: bytes, new: bytes) -> list[bytes]:
    size, low = len(old), 0
    while low < size and old[low : low + 4096] == new[low : low + 4096]:
        low += 4096
    high = size
    while high > low and old[high - 4096 : high] == new[high - 4096 : high]:
        high -= 4096
    changed = [i for i in range(low, min(high, size)) if old[i] != new[i]]
    if not changed or changed[0] // _WORD == changed[-1] // _WORD:
        return []
    middle = changed[len(changed) // 2]
    return [new[:middle] + old[middle:], old[:middle] + new[middle:]]
