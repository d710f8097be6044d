"""The status report: when it is complete, what it says of a connection, and its shape as JSON."""

from __future__ import annotations

import json

import pytest

from ajhost.core.status_report import (
    ConnectionReport,
    RouteStatus,
    StatusReport,
    SupervisorStatus,
    TaskStatus,
    WorkerStatus,
    duration,
)
from ajhost.ledger.connection_status import ConnectionState, ConnectionStatus, Reason, write_connection
from tests.support.memory_ledger import ledger_in_memory


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


@pytest.mark.parametrize(
    ("state", "reason", "text", "told"),
    [
        (ConnectionState.SUBSCRIBED, Reason.NONE, "", "127.0.0.1:4222 for 1 min 30 s"),
        (
            ConnectionState.WAITING,
            Reason.REFUSED,
            "127.0.0.1:4222: connection refused",
            "waiting for 1 min 30 s: 127.0.0.1:4222: connection refused",
        ),
        (
            ConnectionState.LOCKED_OUT,
            Reason.AUTHORIZATION,
            "Authorization Violation",
            "locked out for 1 min 30 s (127.0.0.1:4222): Authorization Violation",
        ),
        (
            ConnectionState.CONNECTING,
            Reason.AUTHORIZATION,
            "Authorization Violation",
            "locked out for 1 min 30 s (127.0.0.1:4222): Authorization Violation",
        ),
        (
            ConnectionState.SEALED,
            Reason.REFUSED,
            "127.0.0.1:4222: connection refused",
            "sealed for 1 min 30 s: 127.0.0.1:4222: connection refused",
        ),
        (ConnectionState.SILENT, Reason.SILENT, "x", "silent for 1 min 30 s (127.0.0.1:4222)"),
    ],
)
def test_a_connection_is_told_with_its_server_its_age_and_its_reason(
    state: ConnectionState, reason: Reason, text: str, told: str
) -> None:
    status = ConnectionStatus(state, "127.0.0.1:4222", 10_000_000_000, reason, text, 0)
    assert str(ConnectionReport.of(status, 100_000_000_000)) == told


def test_how_long_a_process_is_not_subscribed_counts_from_its_loss_over_all_tries() -> None:
    ledger = ledger_in_memory()

    def step(state: ConnectionState, at_s: int) -> str:
        status = ConnectionStatus(state, "s:4222", at_s * 1_000_000_000, Reason.ENDED, "it ended", 0)
        write_connection(ledger.words, ledger.view, status)
        return str(ConnectionReport.of(ledger.connection(), 100_000_000_000))

    assert step(ConnectionState.CONNECTING, 10) == "connecting for 1 min 30 s (s:4222): it ended"
    assert step(ConnectionState.SUBSCRIBED, 20) == "s:4222 for 1 min 20 s"
    again = ConnectionStatus(ConnectionState.SUBSCRIBED, "s:4222", 20_000_000_000, Reason.NONE, "", 3)
    assert str(ConnectionReport.of(again, 100_000_000_000)) == "s:4222 for 1 min 20 s, 3 reconnects"
    assert step(ConnectionState.WAITING, 40) == "waiting for 1 min (s:4222): it ended"
    assert step(ConnectionState.CONNECTING, 90) == "connecting for 1 min (s:4222): it ended"
    assert step(ConnectionState.SUBSCRIBED, 95) == "s:4222 for 5 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7260, "2 h 1 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
