"""When a request must be answered: the router's wall clock time as a time on this machine's monotonic clock.

A router (asyncjobs v0.3.0, request_reply_handler.go) sets the deadline header to its own limit less 2 s, without the
fraction, and `tried` to the time of the same clock just before the call. So *header - tried* is a length of time that
does not depend on the difference between the clocks. *header - now* is right even if the request was on its way for
long, provided that the clocks agree.

The time is kept by `roles/worker/deadlines.py`; for a worker that hangs by `roles/supervisor/deadline_keeper.py`.
"""

from __future__ import annotations

from ajhost.core.timings import SKEW_NOTICED, SKEW_PLAUSIBLE, SKEW_WINDOW

_SECOND = 1_000_000_000
_UNKNOWN = float("inf")
LONGEST_NS = 366 * 86_400 * _SECOND
"""No request has longer, whatever its header says: a later deadline in a ledger is a stray write."""


Budget = tuple[float, float]
"""`(deadline, skew)`. `deadline`: monotonic seconds by which the answer leaves, the time of receipt if it has passed.
`skew`: seconds by which this clock is ahead of `tried`, the request's time on the way included; 0.0 without `tried`. A
plain tuple, since it is made for every request."""


def budget(
    header_ns: int | None,
    tried_ns: int | None,
    now_wall_ns: int,
    now_mono: float,
    timeout: float | None,
    default: float,
    margin: float,
    ahead: float = 0.0,
) -> Budget:
    """The deadline of a request received at `now_wall_ns` (Unix ns) and `now_mono` (s).

    The time left is the smaller of *header - now* and *header - tried*, less `margin`, at most `timeout`. The first is
    too short if this clock is ahead, and right if the request was late. The second is too long by the request's time on
    the way, never too short. With the smaller of both a wrong `tried` can only shorten the time. `ahead`, the seconds
    by which this clock is known to be ahead (`Skew.ahead`), lengthens the first, by at most `SKEW_PLAUSIBLE`. A `tried`
    after the header is impossible and ignored.

    `margin` (s) makes the answer leave before the header's second. A request without a header has `default` (s).
    """
    skew = 0.0 if tried_ns is None else (now_wall_ns - tried_ns) / _SECOND
    if header_ns is None:
        remaining = default
    else:
        left = header_ns - now_wall_ns
        if ahead > 0.0:
            left += int(min(ahead, SKEW_PLAUSIBLE) * _SECOND)
        if tried_ns is not None and tried_ns <= header_ns and header_ns - tried_ns < left:
            left = header_ns - tried_ns
        if left > LONGEST_NS:
            left = LONGEST_NS
        remaining = left / _SECOND - margin
    if timeout is not None and timeout < remaining:
        remaining = timeout
    return (now_mono + remaining if remaining > 0.0 else now_mono), skew


class Skew:
    """How far this machine's clock is ahead of the routers', learned from many requests.

    One request cannot tell a clock that is ahead from a request that was late. The freshest request of `SKEW_WINDOW`
    was hardly on its way at all, so its skew is the clocks' difference. A forged `tried` in the past is never the
    freshest; one in the future only ends the correction.
    """

    __slots__ = ("ahead", "implausible", "least", "until")

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        """Seconds, for `budget`; 0.0 while nothing is known, or the difference is below `SKEW_NOTICED`."""
        self.implausible = 0.0
        """Seconds by which this clock seems to be ahead, if more than `SKEW_PLAUSIBLE`; else 0.0."""
        self.least = _UNKNOWN
        """The least skew of the window. `observe` learns nothing from one that is not less, before `until`."""
        self.until = 0.0
        """When the window is over."""

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
