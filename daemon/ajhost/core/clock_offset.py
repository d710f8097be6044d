"""How far this machine's clock is ahead of the routers', as the processes of a host have learned it together.

A word of the supervisor's ledger, which outlives workers and generations: a worker that had to learn it by itself would
refuse tasks for half a minute after each reload (`core/deadline.py`).
"""

from __future__ import annotations

from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger


class ClockOffset:
    """`shared` is the supervisor's ledger; its word is any process's to write. The last to learn is right."""

    __slots__ = ("_words",)

    def __init__(self, shared: Ledger) -> None:
        self._words = shared.words

    @property
    def ahead(self) -> float:
        """Seconds; 0.0 while nothing is known or the clocks agree."""
        return self._words[Word.CLOCK_AHEAD] / 1e9

    def learn(self, ahead: float) -> None:
        """Somebody has learned it (s), or that it has changed."""
        self._words[Word.CLOCK_AHEAD] = int(ahead * 1e9)

    def merge(self, shared: Ledger) -> None:
        """What an earlier start of the host had learned; the last one is to be told last."""
        self._words[Word.CLOCK_AHEAD] = shared.words[Word.CLOCK_AHEAD] or self._words[Word.CLOCK_AHEAD]
