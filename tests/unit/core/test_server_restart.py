"""Whether requesters are there, as the processes of a host tell each other."""

from __future__ import annotations

import pytest

from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import Word
from tests.support.memory_ledger import ledger_in_memory


@pytest.mark.parametrize(
    ("servers", "clustered", "replaced"),
    [
        ("A", False, [False]),
        ("AAA", False, [False, False, False]),
        ("AB", False, [False, True]),
        ("ABB", False, [False, True, False]),
        ("ABA", False, [False, True, True]),
        ("ABA", True, [False, False, False]),
    ],
)
def test_a_server_in_the_place_of_the_known_one_means_that_requesters_have_to_come_back(
    servers: str, clustered: bool, replaced: list[bool]
) -> None:
    ledger = ledger_in_memory()
    found = []
    for now, server in enumerate(servers, 100):
        process = RestartWindow(ledger)  # each time another one
        found.append(process.server_seen(server.encode(), float(now), clustered=clustered))
        assert process.until == (now + 10.0 if found[-1] else process.until)
    assert found == replaced
    assert (RestartWindow(ledger).until > 0) == any(replaced)


@pytest.mark.parametrize(("away", "by"), [(0.0, 110.0), (9.0, 110.0), (30.0, 130.0), (600.0, 160.0)])
def test_the_longer_the_server_was_away_the_longer_they_take(away: float, by: float) -> None:
    restart_window = RestartWindow(ledger_in_memory())
    restart_window.open(100.0, away)
    assert restart_window.until == by
    restart_window.open(99.0, 0.0)
    assert restart_window.until == by, "who noticed later, or less, takes nothing back"


def test_the_next_start_goes_on_with_what_was_known() -> None:
    eldest, dead, own = ledger_in_memory(), ledger_in_memory(), RestartWindow(ledger_in_memory())
    RestartWindow(eldest).server_seen(b"A", 1.0, clustered=False)
    RestartWindow(eldest).open(80.0, 60.0)
    RestartWindow(dead).server_seen(b"B", 90.0, clustered=False)
    for ledger in (eldest, dead, ledger_in_memory()):
        own.merge(ledger)
    assert own.until == 140.0
    assert not own.server_seen(b"B", 100.0, clustered=False)
    assert own.server_seen(b"C", 100.0, clustered=False), "it was restarted while no host ran"


def test_a_window_that_no_server_opened_is_none() -> None:
    ledger = ledger_in_memory()
    window = RestartWindow(ledger)
    ledger.words[Word.BACK_BY] = ledger.words[Word.WINDOW_OPENED] = (1 << 64) - 1
    assert not window.is_open(100.0)
    assert window.asked_before(100.0) == 0.0
    window.open(100.0, 0.0)
    assert window.is_open(100.0)
    assert not window.is_open(111.0)
