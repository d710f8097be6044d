"""Alive, late, hung, recovered, expired: every verdict, and what leads to it; how long a process had no CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ajhost.core.liveness_rules import (
    LONGEST_STALE_NS,
    MISSED_NS,
    STALE_NS,
    STALLED_NS,
    STARVED_NS,
    STARVED_TAKEOVER_NS,
    UNREAD_BEATS,
    UNREAD_NS,
    UNSUBSCRIBED_NS,
    LifeSign,
    Observation,
    Starvation,
    ThreadTimes,
    Verdict,
    judge,
    may_take_over,
    missing,
)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Observation(age=MISSED_NS), Verdict.ALIVE),
        (Observation(age=MISSED_NS + 1), Verdict.LATE),
        (Observation(age=STALE_NS), Verdict.LATE),
        (Observation(age=STALE_NS + 1), Verdict.HUNG),
        (Observation(age=STALE_NS + 1, patience=2 * STALE_NS), Verdict.LATE),
        (Observation(age=0, unread=UNREAD_NS, unread_beats=9), Verdict.ALIVE),
        (Observation(age=0, unread=UNREAD_NS + 1, unread_beats=UNREAD_BEATS), Verdict.HUNG),
        (Observation(age=0, unread=UNREAD_NS + 1, unread_beats=UNREAD_BEATS - 1), Verdict.ALIVE),
        (Observation(age=0, unsubscribed=UNSUBSCRIBED_NS), Verdict.ALIVE),
        (Observation(age=0, unsubscribed=UNSUBSCRIBED_NS + 1), Verdict.HUNG),
        (Observation(age=STALE_NS + 1, hung=True, left=1), Verdict.HUNG),
        (Observation(age=STALE_NS + 1, hung=True, left=0), Verdict.EXPIRED),
        (Observation(age=STALE_NS + 1, hung=True, reconnected=True, left=0), Verdict.HUNG),
        (Observation(age=STALE_NS + 1, left=-1), Verdict.HUNG),
        (Observation(age=0, hung=True, left=-1), Verdict.HANG_ENDED),
        (Observation(age=0, hung=True, subscribed=False, left=-1), Verdict.HUNG),
        (Observation(age=0, hung=True, unsubscribed=UNSUBSCRIBED_NS + 1, left=-1), Verdict.EXPIRED),
    ],
)
def test_a_verdict_follows_from_the_signs(seen: Observation, verdict: Verdict) -> None:
    assert judge(seen) is verdict


def test_time_without_a_cpu_is_none_in_which_a_heartbeat_could_have_come() -> None:
    assert judge(Observation(age=10 * STALE_NS, starved=10 * STALE_NS - MISSED_NS)) is Verdict.LATE
    assert judge(Observation(age=10 * STALE_NS, unseen=10 * STALE_NS - MISSED_NS)) is Verdict.LATE
    assert judge(Observation(age=10 * STALE_NS, unseen=9 * STALE_NS - 1)) is Verdict.HUNG


def test_a_machine_short_of_cpus_has_more_patience_with_the_rest_too() -> None:
    assert judge(Observation(age=LONGEST_STALE_NS + STARVED_NS, starved=STARVED_NS)) is Verdict.LATE
    assert judge(Observation(age=LONGEST_STALE_NS + STARVED_NS + 1, starved=STARVED_NS)) is Verdict.HUNG


def test_a_machine_short_of_cpus_hides_no_hang_for_longer_than_the_limit() -> None:
    hidden = Observation(age=9 * STALLED_NS, starved=9 * STALLED_NS - STALE_NS, stalled=STALLED_NS)
    assert judge(hidden) is Verdict.LATE
    assert judge(replace(hidden, stalled=STALLED_NS + 1)) is Verdict.HUNG
    assert judge(Observation(age=STALE_NS, stalled=STALLED_NS + 1)) is Verdict.LATE, "it is not starved"


def test_the_missing_sign_is_named() -> None:
    assert missing(Observation(age=STALE_NS + 1)) is LifeSign.HEARTBEAT
    assert missing(Observation(age=0, unread=UNREAD_NS + 1, unread_beats=UNREAD_BEATS)) is LifeSign.READING
    assert missing(Observation(age=0, unsubscribed=UNSUBSCRIBED_NS + 1)) is LifeSign.SUBSCRIPTION
    assert missing(Observation(age=0)) is None


def test_where_cpus_are_short_takeovers_are_apart_and_none_waits_for_the_end_of_another() -> None:
    assert may_take_over(Observation(age=1), 0)
    assert not may_take_over(Observation(age=1, starved=STARVED_NS), STARVED_TAKEOVER_NS - 1)
    assert may_take_over(Observation(age=1, starved=STARVED_NS), STARVED_TAKEOVER_NS)


MS = 1_000_000


def starved(*looks: tuple[bool, int, int]) -> float:
    """One thread, looked at every 50 ms: runnable, its time on a CPU and its run delay so far. All in ms."""
    starvation = Starvation()
    for number, (runnable, ran, waited) in enumerate(looks):
        starvation.observe({7: ThreadTimes(runnable, ran * MS, waited * MS)}, (100 + 50 * number) * MS)
    return starvation.starved_ns / MS


def test_a_thread_that_sleeps_wants_no_cpu() -> None:
    assert starved((False, 5, 1), (False, 5, 1), (False, 5, 1)) == 0


def test_a_thread_that_computes_has_one() -> None:
    assert starved((True, 0, 0), (True, 50, 0), (True, 99, 1)) <= 1


def test_a_runnable_thread_whose_run_time_stands_still_waits_though_the_kernel_has_not_counted_it() -> None:
    assert starved((True, 5, 0), (True, 5, 0), (True, 5, 0)) == 100


def test_what_the_kernel_counts_later_is_not_counted_beyond_the_time_that_passed() -> None:
    assert starved((True, 5, 0), (True, 5, 0), (True, 6, 99), (False, 7, 99)) <= 150


def test_many_short_waits_of_a_thread_that_seems_to_sleep_are_counted() -> None:
    assert starved((False, 0, 0), (False, 2, 45), (False, 4, 90)) == 90


def test_a_sliver_of_cpu_is_starvation_but_for_the_sliver() -> None:
    assert starved((True, 0, 0), (True, 3, 0), (True, 6, 0)) == 94


def test_the_thread_that_waits_counts_though_another_sleeps() -> None:
    starvation = Starvation()
    for at in (100, 150):
        threads = {1: ThreadTimes(False, 0, 0), 2: ThreadTimes(True, 0, 0), at: ThreadTimes(True, 0, 0)}
        starvation.observe(threads, at * MS)
    assert starvation.starved_ns == 50 * MS
