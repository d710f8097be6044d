"""Which requests the soak excuses, since the host may still be away when it would have to answer."""

from __future__ import annotations

import pytest

from ajhost.core.timings import ANSWER_MARGIN
from scripts.lib.soak.stage import BACK_AFTER_REFUSAL, Window, away_at

AT = 1000.0
Spans = list[tuple[float, float]]


@pytest.mark.parametrize(
    ("servers", "daemons", "deadline", "excused"),
    [
        ([(AT, AT + 3)], [], AT + 2, True),
        ([(AT, AT + 3)], [], AT - 1, False),
        # it was there when the answer left, and stood still before it had passed it on
        ([(AT, AT + 3)], [], AT + ANSWER_MARGIN - 0.05, True),
        ([(AT, AT + 3)], [], AT + ANSWER_MARGIN - 0.15, False),
        ([(AT, 0.0)], [], AT + 60, True),  # it lasts
        # in the gap between two lock-outs nobody has had time to come back
        ([(AT, AT + 3), (AT + 3.1, AT + 9)], [], AT + 3.05 + ANSWER_MARGIN, True),
        ([(AT, AT + 3), (AT + 12, AT + 15)], [], AT + 11, False),
        ([(AT, AT + 3)], [], AT + 3 + BACK_AFTER_REFUSAL + 1, False),
        # the next start answers what a killed daemon held, unless the server is away when it comes
        ([], [(AT, AT + 2)], AT + 1, False),
        ([(AT + 1.5, AT + 3)], [(AT, AT + 2)], AT + 1, True),
        ([(AT + 2.5, AT + 3)], [(AT, AT + 2)], AT + 1, False),
    ],
)
def test_a_host_is_excused_until_it_must_be_back(
    servers: Spans, daemons: Spans, deadline: float, excused: bool
) -> None:
    locked_out = [Window("locked out", start, end, back=BACK_AFTER_REFUSAL) for start, end in servers]
    killed = [Window("killed", start, end) for start, end in daemons]
    assert away_at(deadline, locked_out, killed) == excused
