"""By when a request's answer must leave, on this machine's monotonic clock: by the router's deadline less a margin, or
after the route's `timeout` if that is sooner; `workers.default_timeout` counts for a request without a deadline.

A router (asyncjobs v0.3.0, request_reply_handler.go) sets the deadline header to its own limit less 2 s, without the
fraction, and `tried` to the time of the same clock just before the call. So *header - tried* is a length of time that
does not depend on the difference between the clocks. *header - now* is right even if the request was on its way for
long, provided that the clocks agree.

`roles/worker/deadline_enforcement.py` enforces it; for a hanging worker, `roles/supervisor/overdue_answers.py` does.
"""

from __future__ import annotations

from ajhost.core.timings import SKEW_PLAUSIBLE
from ajhost.protocol.timestamps import SECOND

LONGEST_NS = 366 * 86_400 * SECOND
"""The longest budget of a request, whatever its header says. A later deadline in a ledger is a stray write."""


Budget = tuple[float, float]
"""`(deadline, skew)`. `deadline`: monotonic seconds by which the answer leaves, the time of receipt if it has passed.
`skew`: seconds by which this clock is ahead of `tried`, the request's time on the way included; 0.0 without `tried`. A
plain tuple, since it is made for every request.
"""


def budget(
    header_ns: int | None,
    tried_ns: int | None,
    now_wall_ns: int,
    now_mono: float,
    timeout: float | None,
    default: float,
    margin: float,
    ahead: float,
) -> Budget:
    """Returns the deadline of a request received at `now_wall_ns` (Unix ns) and `now_mono` (s).

    The time left is the smaller of *header - now* and *header - tried*, less `margin`, at most `timeout`. The first is
    too short if this clock is ahead, and right if the request was late. The second is too long by the request's time on
    the way, never too short. With the smaller of both a wrong `tried` can only shorten the time. `ahead`, the seconds
    by which this clock is known to be ahead (`core/clock_offset.py`), lengthens the first, by at most `SKEW_PLAUSIBLE`.
    A `tried` after the header is impossible and ignored.

    `margin` (s) makes the answer leave before the header's second. A request without a header has `default` (s).
    """
    skew = 0.0 if tried_ns is None else (now_wall_ns - tried_ns) / SECOND
    if header_ns is None:
        remaining = default
    else:
        left = header_ns - now_wall_ns
        if ahead > 0.0:
            left += int(min(ahead, SKEW_PLAUSIBLE) * SECOND)
        if tried_ns is not None and tried_ns <= header_ns and header_ns - tried_ns < left:
            left = header_ns - tried_ns
        if left > LONGEST_NS:
            left = LONGEST_NS
        remaining = left / SECOND - margin
    if timeout is not None and timeout < remaining:
        remaining = timeout
    return (now_mono + remaining if remaining > 0.0 else now_mono), skew
