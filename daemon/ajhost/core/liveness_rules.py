"""Decides whether a worker is alive, hangs, has recovered, or is to be killed, on a machine short of CPUs too. Nothing
else decides it; `roles/supervisor/liveness_monitor.py` observes.

A worker is alive when its loop turns (heartbeats), when it reads its connection, and when it is in the queue group if
it could be. A worker without one of these signs for too long hangs: its waiting requests run elsewhere, and it is
killed when the first deadline of what it runs is over by the kill grace. `Starvation` tells a worker that hangs from
one on a machine without free CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ajhost.core.timings import (
    HEARTBEAT_MISSED,
    HEARTBEAT_STALE,
    HEARTBEAT_STALE_LONGEST,
    STALLED_LIMIT,
    STARVED,
    STARVED_TAKEOVER_INTERVAL,
    UNREAD_LIMIT,
    UNSUBSCRIBED_LIMIT,
    nanoseconds,
)

MISSED_NS = nanoseconds(HEARTBEAT_MISSED)
STALE_NS = nanoseconds(HEARTBEAT_STALE)
LONGEST_STALE_NS = nanoseconds(HEARTBEAT_STALE_LONGEST)
STARVED_NS = nanoseconds(STARVED)
STALLED_NS = nanoseconds(STALLED_LIMIT)
UNREAD_NS = nanoseconds(UNREAD_LIMIT)
UNREAD_BEATS = 3
"""Bytes must also have waited for so many heartbeats: each is a turn of the loop, which could have read them."""
UNSUBSCRIBED_NS = nanoseconds(UNSUBSCRIBED_LIMIT)
STARVED_TAKEOVER_NS = nanoseconds(STARVED_TAKEOVER_INTERVAL)


class Verdict(Enum):
    """The result of one check of a worker."""

    ALIVE = "every sign of life is there"
    LATE = "a heartbeat was missed"
    HUNG = "it hangs, or did and is not in the queue group again"
    HANG_ENDED = "it hung, and serves again"
    EXPIRED = "it hangs past the kill grace"


class LifeSign(Enum):
    """A sign of life, with the text that says that it is missing."""

    HEARTBEAT = "no heartbeat"
    READING = "it does not read its connection"
    SUBSCRIPTION = "it is not in the queue group, and other processes of this host are connected"


@dataclass(frozen=True, slots=True)
class Observation:
    """The findings of one check of a worker; times in nanoseconds."""

    age: int
    """Time since the last heartbeat."""
    patience: int = STALE_NS
    """The age of a heartbeat beyond which the worker hangs."""
    starved: int = 0
    """The part of `age` in which the worker was runnable and had no CPU."""
    unseen: int = 0
    """The part of `age` in which the supervisor made no check, since it was delayed itself."""
    stalled: int = 0
    """Time without a heartbeat and without the start of a task, as far as the supervisor ran."""
    unread: int = 0
    """Time in which bytes have waited in the connection and the worker has read none."""
    unread_beats: int = 0
    """Heartbeats in that time."""
    unsubscribed: int = 0
    """Time out of the queue group although the worker could be in it."""
    hung: bool = False
    """An earlier check found that the worker hangs."""
    reconnected: bool = False
    """The worker hung on an earlier connection than its present one."""
    subscribed: bool = True
    """The worker is in the queue group, on a connection that the supervisor has not taken over."""
    left: int = 0
    """Time until the worker is killed if it hangs."""


def missing(seen: Observation) -> LifeSign | None:
    """Returns the sign of life that has been missing for too long, if any."""
    # a worker that is preempted over and over needs more CPU time for a turn of its loop
    patience = seen.patience if seen.starved < STARVED_NS else max(seen.patience, LONGEST_STALE_NS)
    if seen.age - seen.starved - seen.unseen > patience:
        return LifeSign.HEARTBEAT
    if seen.starved >= STARVED_NS and seen.stalled > STALLED_NS:
        return LifeSign.HEARTBEAT
    if seen.unread > UNREAD_NS and seen.unread_beats >= UNREAD_BEATS:
        return LifeSign.READING
    if seen.unsubscribed > UNSUBSCRIBED_NS:
        return LifeSign.SUBSCRIPTION
    return None


def judge(seen: Observation) -> Verdict:
    """Returns the verdict on a worker."""
    if missing(seen) is None:
        if seen.hung:
            return Verdict.HANG_ENDED if seen.subscribed else Verdict.HUNG
        return Verdict.ALIVE if seen.age <= MISSED_NS else Verdict.LATE
    if seen.hung and not seen.reconnected and seen.left <= 0:
        return Verdict.EXPIRED
    return Verdict.HUNG


def may_take_over(seen: Observation, since_last: int) -> bool:
    """Whether the supervisor takes over a hanging worker's connection now, `since_last` ns after the last takeover.

    On a machine short of CPUs takeovers are spaced out. But none waits until another worker's hang has ended: the
    requests unread in this connection have deadlines, too, and only a takeover can answer them.
    """
    return seen.starved < STARVED_NS or since_last >= STARVED_TAKEOVER_NS


class ThreadTimes(NamedTuple):
    """One thread: whether it is running or runnable, and its nanoseconds on a CPU and on a run queue."""

    runnable: bool
    ran_ns: int
    waited_ns: int


class Starvation:
    """For how long one process wanted a CPU and had none, since the first `observe`.

    A thread that is runnable and does not run waits for a CPU: other threads have all of them, or the CPU quota of its
    control group is used up. The kernel adds that time to the thread's run delay, but only when the thread runs again.
    Until then the thread is runnable and its run time does not grow.
    """

    def __init__(self) -> None:
        self.starved_ns = 0
        self._threads: Mapping[int, ThreadTimes] = {}
        self._at_ns = 0

    def observe(self, threads: Mapping[int, ThreadTimes], now_ns: int) -> None:
        """Adds the longest wait of any thread since the last call, from the threads' times at `now_ns`.

        Every thread counts: the loop's thread may wait for one that holds the interpreter's lock and gets no CPU.
        """
        passed_ns = now_ns - self._at_ns if self._at_ns else 0
        waits = [
            _waited_ns(before, thread, passed_ns)
            for number, thread in threads.items()
            if (before := self._threads.get(number)) is not None
        ]
        self.starved_ns += min(max(waits, default=0), passed_ns)
        self._threads, self._at_ns = threads, now_ns


def _waited_ns(before: ThreadTimes, now: ThreadTimes, passed_ns: int) -> int:
    recorded_ns = now.waited_ns - before.waited_ns
    if before.runnable and now.runnable:
        # the kernel records the wait only when the thread runs next
        return max(recorded_ns, passed_ns - (now.ran_ns - before.ran_ns))
    return recorded_ns
