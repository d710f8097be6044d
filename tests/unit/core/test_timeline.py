"""What happened to a host of late."""

from __future__ import annotations

from itertools import count

from ajhost.core.timeline import EventKind, Timeline


def test_replaced_workers_push_nothing_else_out() -> None:
    moments = count(1.0)
    timeline = Timeline(lambda: next(moments))
    assert timeline.last(EventKind.DEATH) == ("", 0.0)
    timeline.add(EventKind.DEATH, "worker 1 died\nits stack")
    for number in range(1000):
        timeline.add(EventKind.REPLACED, f"worker {number}")
    assert timeline.last(EventKind.DEATH) == ("worker 1 died", 1.0)
    assert timeline.last(EventKind.REPLACED) == ("worker 999", 1001.0)
    assert [event.kind for event in timeline.newest_first()] == [EventKind.DEATH]
