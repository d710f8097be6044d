"""Decides whether a worker is alive, hangs, or has recovered. Without I/O; nothing else decides it.

A worker is alive when its loop turns (heartbeats), when it reads its connection, and when it is in the queue group
although it could be. If one sign is missing for too long, the worker hangs: what it has not started runs elsewhere,
and the supervisor kills it when the first deadline of what it runs has passed by the kill grace.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

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
"""Heartbeats for which bytes must have waited besides: each is a turn of the loop, which could have read them."""
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
    """The sign of life that is missing."""

    HEARTBEAT = "no heartbeat"
    READING = "it does not read its connection"
    SUBSCRIPTION = "it is not in the queue group, and other processes of this host are connected"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check has seen of a worker; times in nanoseconds."""

    age: int
    """Since its last heartbeat."""
    patience: int = STALE_NS
    """The age of a heartbeat from which on it hangs."""
    starved: int = 0
    """The part of `age` in which it wanted a CPU and had none."""
    unseen: int = 0
    """The part of `age` in which nobody looked, as the supervisor was held up itself."""
    stalled: int = 0
    """For how long it has neither beaten nor begun a task, while the observer ran."""
    unread: int = 0
    """For how long bytes wait in its connection, none of which it reads."""
    unread_beats: int = 0
    """Its heartbeats in that time."""
    unsubscribed: int = 0
    """For how long it is out of the queue group while it could be in it."""
    hung: bool = False
    """It was found to hang at an earlier check."""
    reconnected: bool = False
    """It hung on an earlier connection than its present one."""
    subscribed: bool = True
    """It is in the queue group, on a connection that nobody took from it."""
    left: int = 0
    """Until it is killed, if it hangs."""


def missing(seen: Observation) -> LifeSign | None:
    """The sign of life that is missing for too long."""
    # a worker that is interrupted over and over needs more CPU time for a turn of its loop
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
    """The verdict on a worker."""
    if missing(seen) is None:
        if seen.hung:
            return Verdict.HANG_ENDED if seen.subscribed else Verdict.HUNG
        return Verdict.ALIVE if seen.age <= MISSED_NS else Verdict.LATE
    if seen.hung and not seen.reconnected and seen.left <= 0:
        return Verdict.EXPIRED
    return Verdict.HUNG


def may_take_over(seen: Observation, since_last: int) -> bool:
    """Whether a worker that hangs is taken over now, `since_last` nanoseconds after the takeover before.

    On a machine short of CPUs takeovers are apart from each other. But nobody waits for the end of another's hang: what
    lies unread in the connection of this one has deadlines too, and nobody else can answer it.
    """
    return seen.starved < STARVED_NS or since_last >= STARVED_TAKEOVER_NS
