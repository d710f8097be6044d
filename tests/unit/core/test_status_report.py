"""The status report: when it is complete, and its shape as JSON."""

from __future__ import annotations

import json

import pytest

from ajhost.core.connection_report import ConnectionReport
from ajhost.core.status_report import (
    RouteStatus,
    StatusReport,
    SupervisorStatus,
    TaskStatus,
    WorkerStatus,
)


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
    connection = ConnectionReport("connected", "127.0.0.1:4222", 60.0, "", 1)
    serving = WorkerStatus(0, 100, 1, "serving", (task,), {"received": 2}, connection, 1 << 20, 0.5)
    route = RouteStatus("email:", 9, 5, 1, {"draining": 1}, {}, 1, 1, 0.1, 0.0, 0.01, 0.2, None)
    supervisor = SupervisorStatus(7, 3, False, "0.1.0", "/etc/ajhost/ajhost.toml", 90.5)
    told = json.loads(json.dumps(StatusReport(supervisor, (serving,), 1, (route,), 60.0).as_object()))
    assert told == {
        "supervisor": {
            "pid": 7,
            "generation": 3,
            "ready": False,
            "version": "0.1.0",
            "settings": "/etc/ajhost/ajhost.toml",
            "uptime_s": 90.5,
            "connection": None,
            "last_death": "",
            "died_s": 0.0,
            "silent_s": 0.0,
            "stopping": False,
            "last_replaced": "",
            "replaced_s": 0.0,
            "drain_by": "",
            "drain_s": 0.0,
        },
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
                "connection": {
                    "state": "connected",
                    "server": "127.0.0.1:4222",
                    "since_s": 60.0,
                    "reason": "",
                    "reconnects": 1,
                    "refused_replies": 0,
                },
                "memory": 1 << 20,
                "cpu": 0.5,
            }
        ],
        "routes": [
            {
                "route": "email:",
                "received": 9,
                "completed": 5,
                "terminated": 1,
                "failed": {"draining": 1},
                "refused": {},
                "running": 1,
                "waiting": 1,
                "per_second": 0.1,
                "errors_per_second": 0.0,
                "p50_s": 0.01,
                "p99_s": 0.2,
                "waiting_p99_s": None,
            }
        ],
        "slots": 1,
        "serving": 1,
        "recent_s": 60.0,
        "draining": False,
        "drained": False,
        "left": 0,
    }


def test_a_report_of_a_later_version_is_read_without_what_is_new() -> None:
    task = TaskStatus("id", "email:new", "email:", "running", 1.5, "2026-01-01T00:00:00Z")
    connection = ConnectionReport("connected", "127.0.0.1:4222", 60.0, "", 1)
    route = RouteStatus("email:", 9, 5, 1, {}, {}, 1, 1, 0.1, 0.0, 0.01, 0.2, None)
    serving = WorkerStatus(0, 100, 1, "serving", (task,), {}, connection)
    report = StatusReport(SupervisorStatus(7, 3, True, connection=connection), (serving,), 1, (route,))
    body = report.as_object()
    (told,) = body["workers"]
    for part in (
        body,
        body["supervisor"],
        body["supervisor"]["connection"],
        told,
        told["tasks"][0],
        body["routes"][0],
    ):
        part["later"] = {"more": 1}
    assert StatusReport.from_object(body) == report
