"""How far this machine's clock is ahead of the routers', shared by all processes of a host.

A word of the supervisor's ledger, which outlives workers and generations: a worker that had to learn it by itself would
refuse tasks for half a minute after each reload (`core/time_left.py`).
"""

from __future__ import annotations

from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger


class ClockOffset:
    """A word of the supervisor's ledger, `shared`, which any process may write. The last one to learn it is right."""

    __slots__ = ("_words",)

    def __init__(self, shared: Ledger) -> None:
        self._words = shared.words

    @property
    def ahead(self) -> float:
        """Seconds; 0.0 while nothing is known or the clocks agree."""
        return self._words[Word.CLOCK_AHEAD] / 1e9

    def learn(self, ahead: float) -> None:
        """Stores what this process has learned (s)."""
        self._words[Word.CLOCK_AHEAD] = int(ahead * 1e9)

    def merge(self, shared: Ledger) -> None:
        """Takes what an earlier start had learned. Call it for each start, the latest one last."""
        self._words[Word.CLOCK_AHEAD] = shared.words[Word.CLOCK_AHEAD] or self._words[Word.CLOCK_AHEAD]
