"""Attempts: each one is counted by its route, and told in one record if it did not complete."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from ajhost.adapters.logs.log_record import TaskLabels, labels_of
from ajhost.core.route_stats import HEADER_SIZE, RouteStats, StatsWriter, file_size, read
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.task_record import read_task
from ajhost.roles.attempt_records import Attempts, log_exception, log_outcome

LABELS = TaskLabels("2aXw", "email:new", "email:", 3, 1.5)


class Attempt:
    """An attempt as those that are answered are."""

    def labels(self) -> TaskLabels:
        return LABELS


class Counting:
    """Attempts whose statistics can be read."""

    def __init__(self, *, log_completed: bool = False, limits: Sequence[tuple[str, int]] = ()) -> None:
        self.memory = bytearray(file_size(1))
        writer = StatsWriter(memoryview(self.memory), ("email:",))
        self.attempts = Attempts(writer, ["email:"], log_completed=log_completed, limits=limits)

    def end(self, outcome: Outcome, *, logged: bool = False) -> None:
        self.attempts.count(0, outcome, 0.1, 0.2)
        self.attempts.ended(Attempt(), outcome, logged=logged)

    @property
    def stats(self) -> RouteStats:
        return read(bytes(self.memory))["email:"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


ALL = {
    "aj_task": "2aXw",
    "aj_type": "email:new",
    "aj_route": "email:",
    "aj_tries": "3",
    "aj_duration": "1.500000",
}


@pytest.mark.parametrize(
    ("outcome", "level", "text", "labels"),
    [
        (
            Failed("deadline exceeded: the handler was still running"),
            logging.WARNING,
            "route 'email:': AJ-Error: deadline exceeded: the handler was still running",
            {"aj_outcome": "failed", "aj_reason": "deadline exceeded"},
        ),
        (
            Terminated("result too large: 2 bytes, the server takes 1"),
            logging.WARNING,
            "route 'email:': AJ-Terminate: result too large: 2 bytes, the server takes 1",
            {"aj_outcome": "terminated", "aj_reason": "other"},
        ),
    ],
)
def test_an_attempt_that_did_not_complete_leaves_one_record_with_every_field(
    log: pytest.LogCaptureFixture, outcome: Outcome, level: int, text: str, labels: dict[str, str]
) -> None:
    counting = Counting()
    counting.end(outcome)
    (record,) = log.records
    assert (record.levelno, record.getMessage(), labels_of(record)) == (level, text, ALL | labels)


def test_a_handler_s_own_end_of_a_task_is_no_warning(log: pytest.LogCaptureFixture) -> None:
    log_outcome(Terminated("no recipient"), LABELS, logging.INFO)
    Counting().end(Terminated("no recipient"), logged=True)
    (record,) = log.records
    assert (record.levelno, record.getMessage()) == (
        logging.INFO,
        "route 'email:': AJ-Terminate: no recipient",
    )


def test_an_attempt_that_completed_is_told_when_asked_for(log: pytest.LogCaptureFixture) -> None:
    Counting().end(Completed(b""))
    assert log.records == []
    Counting(log_completed=True).end(Completed(b""))
    (record,) = log.records
    assert (record.levelno, labels_of(record)) == (logging.INFO, ALL | {"aj_outcome": "completed"})


def test_attempts_that_completed_are_told_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    Counting().end(Completed(b""))
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def test_an_exception_is_told_once_with_its_traceback(log: pytest.LogCaptureFixture) -> None:
    error = ValueError("boom")
    log_exception(error, "ValueError: boom", LABELS)
    Counting().end(Failed("handler error: ValueError: boom"), logged=True)
    (record,) = log.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert labels_of(record) == ALL | {"aj_outcome": "failed", "aj_reason": "handler error"}


def test_every_outcome_is_counted() -> None:
    counting = Counting()
    outcomes: list[Outcome] = [
        Completed(b"x"),
        Completed(b""),
        Terminated("no"),
        Failed("draining: stop"),
        Failed("?"),
    ]
    for outcome in outcomes:
        counting.end(outcome)
    counting.attempts.refused(0, "overloaded: 64 requests wait already")
    stats = counting.stats
    assert (stats.completed, stats.terminated) == (2, 1)
    assert (stats.failed["draining"], stats.failed["other"], stats.refused["overloaded"]) == (1, 1, 1)
    assert (stats.waiting.count, stats.running.count, stats.answered) == (5, 5, 6)


def test_refusals_are_told_once_for_each_reason_and_counted_after_that(log: pytest.LogCaptureFixture) -> None:
    attempts = Counting().attempts
    record = read_task(b'{"id":"2aXw","type":"email:new","queue":"Q","tries":3}')
    for number in range(5):
        attempts.refused(0, f"overloaded: {number}", record)
        attempts.refused(None, "bad request: no JSON")
        attempts.refused(0, "bad request: the task is not signed", record)
    assert [record.getMessage() for record in log.records] == [
        "refused: overloaded: 0",
        "refused: bad request: no JSON",
        "refused: bad request: the task is not signed",
    ]
    known = ALL | {"aj_duration": "0.000000", "aj_outcome": "refused"}
    assert labels_of(log.records[0]) == known | {"aj_reason": "overloaded"}
    log.clear()
    attempts.limits.tick()
    assert log.records == [], "it is too soon"
    attempts.limits.close()
    assert sorted(record.getMessage() for record in log.records) == [
        "refused 4 more in 0 s, the last: bad request: no JSON",
        "refused 4 more in 0 s, the last: bad request: the task is not signed",
        "refused 4 more in 0 s, the last: overloaded: 4",
    ]
    assert {labels_of(record)["aj_count"] for record in log.records} == {"4"}


def test_records_of_a_reason_are_limited_and_the_others_counted(log: pytest.LogCaptureFixture) -> None:
    limits = [("handler error", 3), ("overloaded", 2)]
    counting = Counting(limits=limits)
    try:
        for number in range(10):
            counting.end(Failed(f"handler error: {number} %d"))
            counting.end(Failed("worker died: SIGKILL"))
            log_exception(ValueError("no"), "handler error: raised", LABELS)
            counting.attempts.refused(0, f"overloaded: {number}")
        said = Counter(record.getMessage() for record in log.records)
        assert said["route 'email:': AJ-Error: worker died: SIGKILL"] == 10
        assert sum("handler error" in text for text in said.elements()) == 3
        assert said["refused: overloaded: 1"] == 1
        assert sum("overloaded" in text for text in said.elements()) == 2
        assert counting.stats.failed["handler error"] == 10, "all are counted"
        log.clear()
    finally:
        counting.attempts.limits.close()
    (kept,) = [record for record in log.records if "handler error" in record.getMessage()]
    assert kept.getMessage() == "handler error: 17 more in 0 s, the last: route 'email:': handler error: raised"
    assert labels_of(kept) == {"aj_reason": "handler error", "aj_count": "17"}
    log_exception(ValueError("no"), "handler error: raised", LABELS)
    assert len(log.records) == 3, "nobody limits it any more"


@pytest.mark.parametrize(
    "count",
    [
        lambda a: a.count(0, Completed(b""), 1.0, 1.0),
        lambda a: a.count(0, Failed("x"), 1.0, 1.0),
        lambda a: a.refused(0, "draining: x"),
    ],
)
def test_a_stray_write_into_the_statistics_costs_no_answer(count: Callable[[Attempts], None]) -> None:
    counting = Counting()
    counters = slice(HEADER_SIZE + 32 * 8, None)
    counting.memory[counters] = b"\xff" * len(counting.memory[counters])
    count(counting.attempts)
