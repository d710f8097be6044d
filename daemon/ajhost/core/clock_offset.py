"""How far this machine's clock is ahead of the routers': learned from requests, shared by all processes of a host.
`core/deadline_budget.py` corrects deadlines by it, `roles/request_check.py` warns of it in the log.

The result is kept in a word of the supervisor's ledger, which outlives workers and generations. A worker that had to
learn it by itself would refuse tasks for half a minute after each reload.
"""

from __future__ import annotations

from ajhost.core.timings import SKEW_NOTICED, SKEW_PLAUSIBLE, SKEW_WINDOW
from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger

_UNKNOWN = float("inf")


class ClockOffset:
    """The offset in a word of the supervisor's ledger, `shared`, which any process may write. The last store wins."""

    __slots__ = ("_words",)

    def __init__(self, shared: Ledger) -> None:
        self._words = shared.words

    @property
    def ahead(self) -> float:
        """Seconds; 0.0 while nothing is known or the clocks agree."""
        return self._words[Word.CLOCK_AHEAD] / 1e9

    def learn(self, ahead: float) -> None:
        """Stores the offset (s) that this process has learned."""
        self._words[Word.CLOCK_AHEAD] = int(ahead * 1e9)

    def merge(self, shared: Ledger) -> None:
        """Takes the offset of an earlier start, if it had one. Call it for each earlier start, the latest one last."""
        self._words[Word.CLOCK_AHEAD] = shared.words[Word.CLOCK_AHEAD] or self._words[Word.CLOCK_AHEAD]


class Skew:
    """Estimates from many requests how far this machine's clock is ahead of the routers'.

    One request cannot tell a clock that is ahead from a request that was late. The freshest request of a window
    (`SKEW_WINDOW`) took almost no time on its way, so its skew is the difference of the clocks. A forged `tried` in the
    past is never the freshest; one in the future only ends the correction.
    """

    __slots__ = ("ahead", "implausible", "least", "until")

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        """Seconds, for `deadline_budget.py`; 0.0 while nothing is known, or the difference is below `SKEW_NOTICED`."""
        self.implausible = 0.0
        """Seconds by which this clock seems to be ahead, if more than `SKEW_PLAUSIBLE`; else 0.0."""
        self.least = _UNKNOWN
        """The least skew of the window. `observe` learns nothing from one that is not less, before `until`."""
        self.until = 0.0
        """The end of the window (monotonic seconds)."""

    def observe(self, skew: float, now_mono: float) -> bool:
        """Takes the skew (s) of a request that has a `tried` and was received at `now_mono` (s).

        Returns whether `ahead` was decided anew: the window is over, or a request was fresher than `ahead` allows.
        """
        if self.least == _UNKNOWN:
            self.until = now_mono + SKEW_WINDOW
        least = self.least = min(self.least, skew)
        before, self.ahead = self.ahead, min(self.ahead, _correction(least))
        if now_mono < self.until:
            return self.ahead < before
        self.ahead = _correction(least)
        self.implausible = least if least > SKEW_PLAUSIBLE else 0.0
        self.least = _UNKNOWN
        return True


def _correction(least: float) -> float:
    return least if SKEW_NOTICED <= least <= SKEW_PLAUSIBLE else 0.0
