"""When a request must be answered: the router's wall clock turned into ours, which only moves forward.

What the router says (asyncjobs v0.3.0, request_reply_handler.go): the header is its own limit less 2 s with the
fraction cut off, `tried` is the same clock's time just before the call. So the header minus `tried` is a length of
time that no difference between the clocks can spoil, and the header minus our own clock is right even if the request
has been on its way for long, provided that the clocks agree.
"""

from __future__ import annotations

from ajhost.core.timings import SKEW_NOTICED, SKEW_PLAUSIBLE, SKEW_WINDOW

_SECOND = 1_000_000_000
_LONGEST = 366 * 86_400 * _SECOND


Budget = tuple[float, float]
"""`(deadline, skew)`: monotonic seconds by which the answer leaves, the time of receipt itself if it is already past;
and seconds by which our clock is ahead of `tried`, time on the way included, 0.0 without `tried`. A plain tuple, since
it is made for every request."""


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

    The rule: the smaller of *header - now* and *header - tried*, less `margin`, at most `timeout`. The first is cut
    short by a clock of ours that runs ahead, and stays right when the request was late; the second is too long by the
    time on the way, never too short. Taking the smaller, a wrong `tried` can only shorten the time: nothing extends it
    beyond the header but `ahead`, the seconds that our clock is known to run ahead (`Skew.ahead`), and that is
    limited to `SKEW_PLAUSIBLE`. A `tried` after the header is impossible and ignored.

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
        remaining = min(left, _LONGEST) / _SECOND - margin
    if timeout is not None and timeout < remaining:
        remaining = timeout
    return (now_mono + remaining if remaining > 0.0 else now_mono), skew


class Skew:
    """How far our wall clock runs ahead of the routers', from what `budget` saw of many requests.

    One request cannot tell a clock that is ahead from a request that was late. Many can: the freshest of half a minute
    has hardly been on its way at all, so what it still seems late is the clock's doing. A forged `tried` in the past
    never is the freshest, one in the future only ends the correction.
    """

    __slots__ = ("_least", "_since", "ahead", "implausible")

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead
        """Seconds for `budget`; 0.0 while nothing is known, or the clocks agree to a quarter of a second."""
        self.implausible = 0.0
        """Seconds by which it seems to be ahead when that is too much to be believed, else 0.0."""
        self._least: float | None = None
        self._since = 0.0

    def observe(self, skew: float, now_mono: float) -> bool:
        """Take the skew (s) of a request received at `now_mono` (s), as `budget` found it; only if it has a `tried`.

        Whether something was learned: half a minute is over, and what was found in it counts from now on, or a request
        was fresher than the clock's offset allows.
        """
        least = self._least
        if least is None:
            self._since = now_mono
        elif skew >= least and now_mono - self._since < SKEW_WINDOW:
            return False  # not the freshest, and more are to come
        least = self._least = skew if least is None else min(least, skew)
        before, self.ahead = self.ahead, min(self.ahead, _correction(least))
        if now_mono - self._since < SKEW_WINDOW:
            return self.ahead < before
        self.ahead = _correction(least)
        self.implausible = least if least > SKEW_PLAUSIBLE else 0.0
        self._least = None
        return True


def _correction(least: float) -> float:
    return least if SKEW_NOTICED <= least <= SKEW_PLAUSIBLE else 0.0
