"""Past a server's restart what is repeated is only what was asked for before it."""

from __future__ import annotations

import pytest

from ajhost.core.retransmit import RetransmitBuffer
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import Geometry, Identity, create
from ajhost.ledger.view import Ledger


@pytest.fixture
def window() -> RestartWindow:
    geometry = Geometry(8, 1 << 16, 1 << 12)
    memory = memoryview(bytearray(geometry.size))
    create(memory, geometry, Identity(1, 0, 1))
    return RestartWindow(Ledger(memory))


def test_nothing_was_asked_before_while_no_server_was_away(window: RestartWindow) -> None:
    assert window.asked_before(100.0) == 0.0


def test_what_was_asked_before_a_server_came_is_told_from_what_was_asked_after(window: RestartWindow) -> None:
    window.open(100.0, 2.0)
    assert window.asked_before(101.0) == 100.0
    assert window.asked_before(200.0) == 0.0


def test_only_what_was_asked_before_is_repeated(window: RestartWindow) -> None:
    buffer = RetransmitBuffer(window)
    window.open(100.0, 2.0)
    buffer.due(100.0)
    buffer.sent(b"old new", [1, 2], 100.5, b"old")
    buffer.sent(b"newer", [3], 100.6, b"")
    assert buffer.due(101.6) == [b"old"]
    assert buffer.due(104.0) == [b"old"]


def test_what_came_through_a_new_server_is_not_repeated_as_more_processes_find_it(
    window: RestartWindow,
) -> None:
    first, second = RetransmitBuffer(window), RetransmitBuffer(window)
    window.server_seen(b"before", 1.0, clustered=False)
    window.server_seen(b"after", 100.0, clustered=False)
    first.reconnected(100.0, 0.5)
    assert window.asked_before(100.5) == 100.0
    first.sent(b"asked after", [1], 101.0, b"")
    window.server_seen(b"after", 101.5, clustered=False)
    second.reconnected(101.5, 2.0)
    assert window.asked_before(101.6) == 100.0
    assert first.due(101.6) == []
    assert first.due(104.0) == []


def test_a_server_that_is_lost_while_requesters_come_back_to_another_begins_anew(
    window: RestartWindow,
) -> None:
    window.open(100.0, 0.5)
    window.open(103.0, 1.0)
    assert window.asked_before(104.0) == 103.0
