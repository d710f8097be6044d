"""The report of a connection: what it says of each state, and for how long."""

from __future__ import annotations

import pytest

from ajhost.core.connection_report import ConnectionReport, duration
from ajhost.ledger.connection_status import ConnectionState, ConnectionStatus, Reason, write_connection
from tests.support.memory_ledger import ledger_in_memory


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
