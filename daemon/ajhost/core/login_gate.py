"""Which process of a host may log in while the server refuses log-ins: one at a time, and all once one has succeeded;
and which one may try another server while its own is about to stop.

A wrong password locks all processes of a host out at once. If each tried with pauses of its own, the server would be
busy with log-ins that fail. So the processes share five words of the supervisor's ledger. Two stores at the same moment
mean that two processes try instead of one.
"""

from __future__ import annotations

from collections.abc import MutableSequence

from ajhost.core.timings import (
    GATE_FARTHEST,
    GATE_MOVE_SPACING,
    GATE_NEWCOMER_SPACING,
    GATE_SPACING_FIRST,
    GATE_SPACING_GROWN,
    GATE_SPACING_LAST,
)

SHUT_SINCE, NEXT_TURN, NEWCOMERS_TURN, OPENED, NEXT_MOVE = range(5)
"""Words of the gate, in monotonic nanoseconds. `SHUT_SINCE`: when the first log-in was refused; 0: the gate is open."""
WORDS = 5


class LoginGate:
    """The gate in the first five of `words`, shared by all processes of a host. Times are monotonic seconds."""

    def __init__(self, words: MutableSequence[int] | memoryview) -> None:
        self._words = words
        self._refused_ns = 0
        """When a server last refused this process, or another one's log-in was noticed after that."""

    def refused(self, now: float) -> None:
        """Shuts the gate: a server has refused this process's log-in."""
        self._refused_ns = ns = int(now * 1e9)
        if not self._words[SHUT_SINCE]:
            self._words[SHUT_SINCE] = ns
            self._words[NEXT_TURN] = ns + int(GATE_SPACING_FIRST * 1e9)

    def opened(self, now: float) -> None:
        """Opens the gate: a server has accepted this process's log-in."""
        if self._words[SHUT_SINCE]:
            self._words[OPENED] = int(now * 1e9)
            self._words[SHUT_SINCE] = 0

    def was_opened(self, now: float) -> bool:
        """Whether another process has logged in since this one was refused, and none was refused after that.

        Answers so once for each opening.
        """
        if self._words[SHUT_SINCE] or self._words[OPENED] <= self._refused_ns:
            return False
        self._refused_ns = int(now * 1e9)
        return True

    def may_try(self, now: float) -> bool:
        """Takes a turn. Returns whether this process may try now: always while the gate is open, else one at a time."""
        since, ns = self._words[SHUT_SINCE], int(now * 1e9)
        if not since:
            return True
        if self._refused_ns < since:
            return self._take(NEWCOMERS_TURN, GATE_NEWCOMER_SPACING, ns)
        shut = max(ns - since, 0) / 1e9
        spacing = GATE_SPACING_FIRST + (GATE_SPACING_LAST - GATE_SPACING_FIRST) * min(shut / GATE_SPACING_GROWN, 1.0)
        return self._take(NEXT_TURN, spacing, ns)

    def may_move(self, now: float) -> bool:
        """Whether this process may now leave its server, which is about to stop."""
        return self._take(NEXT_MOVE, GATE_MOVE_SPACING, int(now * 1e9))

    def _take(self, word: int, spacing: float, ns: int) -> bool:
        if ns < self._words[word] < ns + int(GATE_FARTHEST * 1e9):
            return False
        self._words[word] = ns + int(spacing * 1e9)
        return True
