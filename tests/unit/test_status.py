"""The status report: when it is complete, and its shape as JSON."""

from __future__ import annotations

import json

import pytest

from ajhost.core.status import StatusReport, SupervisorStatus, TaskStatus, WorkerStatus


def worker(slot: int, state: str, *tasks: TaskStatus) -> WorkerStatus:
    return WorkerStatus(slot, 100 + slot, 1, state, tasks, {"received": 2})


@pytest.mark.parametrize(
    ("states", "count", "complete"),
    [
        (["serving", "serving"], 2, True),
        (["serving", "hung"], 2, False),
        (["serving", "starting"], 2, False),
        (["serving"], 2, False),
        (["serving", "serving", "leaving"], 2, True),
        ([], 0, False),
    ],
)
def test_it_is_complete_when_every_slot_serves(states: list[str], count: int, complete: bool) -> None:
    workers = tuple(worker(slot, state) for slot, state in enumerate(states))
    assert StatusReport(SupervisorStatus(1, 1, True), workers, count).complete is complete


def test_a_slot_that_is_being_replaced_counts_once() -> None:
    both = (worker(0, "serving"), worker(0, "serving"))
    report = StatusReport(SupervisorStatus(1, 1, True), both, 2)
    assert (report.serving, report.complete) == (1, False)


def test_its_json_is_what_programs_rely_on() -> None:
    task = TaskStatus("id", "email:new", "email:", "running", 1.5, "2026-01-01T00:00:00Z")
    report = StatusReport(SupervisorStatus(7, 3, False), (worker(0, "serving", task),), 1)
    assert json.loads(json.dumps(report.as_object())) == {
        "supervisor": {"pid": 7, "generation": 3, "ready": False},
        "workers": [
            {
                "slot": 0,
                "pid": 100,
                "generation": 1,
                "state": "serving",
                "tasks": [
                    {
                        "id": "id",
                        "type": "email:new",
                        "route": "email:",
                        "state": "running",
                        "running_s": 1.5,
                        "deadline": "2026-01-01T00:00:00Z",
                    }
                ],
                "counts": {"received": 2},
            }
        ],
    }
