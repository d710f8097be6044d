"""A job that fails is logged once, counted, and done again; what ends a process ends it."""

from __future__ import annotations

import logging

import pytest

from ajhost.adapters.fault_guard import FaultGuard

LOG = logging.getLogger("ajhost.test.guard")


def fail(guard: FaultGuard, job: str = "the job") -> None:
    with guard(job):
        raise ValueError("a wild byte")


def test_the_first_failure_is_told_with_its_traceback_and_the_next_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = FaultGuard(LOG)
    for _ in range(100):
        fail(guard)
    fail(guard, "another job")
    assert [record.getMessage() for record in caplog.records] == [
        "the job failed, and is done again: ValueError('a wild byte')",
        "another job failed, and is done again: ValueError('a wild byte')",
    ]
    assert all(record.exc_info for record in caplog.records)
    assert guard.failures == {"the job": 100, "another job": 1}


def test_what_was_counted_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    guard = FaultGuard(LOG, pause=0.25)
    fail(guard)
    fail(guard)
    while len(caplog.records) == 1:
        guard.report()
    assert caplog.records[1].getMessage() == "the job failed 1 more times in 0 s"
    fail(guard)
    guard.report()
    assert len(caplog.records) == 2
    while len(caplog.records) == 2:
        fail(guard)
    assert caplog.records[-1].exc_info, "after a while it is told in full again"


def test_what_ends_a_process_is_no_failure_of_a_job() -> None:
    guard = FaultGuard(LOG)
    with pytest.raises(KeyboardInterrupt), guard("the job"):
        raise KeyboardInterrupt
    assert not guard.failures
