"""A process that waited for a CPU is told from one that had one, or slept."""

from __future__ import annotations

from ajhost.core.starvation import Starvation, ThreadTimes

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
