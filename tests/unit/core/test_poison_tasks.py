"""What a task is told whose worker died."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ajhost.core.poison_tasks import TASKS_REMEMBERED, PoisonTasks
from ajhost.ledger.layout import State
from ajhost.ledger.view import Entry
from ajhost.protocol.outcome import Failed, Outcome, Terminated


def entry(id_: str = "i", kind: str = "a") -> Entry:
    return Entry(0, 1, State.STARTED, False, False, 0, 0, 0, 0, 0, None, b"r", id_, kind, 0, 1)


def poison_tasks(*limits: tuple[str, int]) -> PoisonTasks:
    return PoisonTasks(limits)


DIED = "worker died: SIGKILL while the task was running"


@pytest.mark.parametrize(
    ("limits", "kind", "outcomes"),
    [
        ((("a", 0),), "a", [Failed(DIED)] * 5),
        ((("a", 1),), "a", [Terminated(f"{DIED}; it has killed 1 workers")] * 2),
        (
            (("a", 3),),
            "a",
            [Failed(DIED), Failed(DIED), Terminated(f"{DIED}; it has killed 3 workers"), Failed(DIED)],
        ),
        # the longest route counts, the catch-all is a beginning of every type
        ((("", 1), ("a", 0), ("a:b", 2)), "a", [Failed(DIED)] * 3),
        (
            (("", 1), ("a", 0), ("a:b", 2)),
            "a:b",
            [Failed(DIED), Terminated(f"{DIED}; it has killed 2 workers")],
        ),
        ((("", 1), ("a", 0)), "x", [Terminated(f"{DIED}; it has killed 1 workers")]),
        ((("b", 1),), "a", [Failed(DIED)] * 3),
    ],
)
def test_a_task_that_kills_every_worker_is_terminated_at_its_limit(
    limits: Sequence[tuple[str, int]], kind: str, outcomes: Sequence[Outcome]
) -> None:
    ask = poison_tasks(*limits)
    assert [ask.outcome(entry(kind=kind), "SIGKILL") for _ in outcomes] == list(outcomes)


def test_deaths_are_counted_for_each_task() -> None:
    ask = poison_tasks(("a", 2))
    assert [type(ask.outcome(entry(i), "x")) for i in "ababcc"] == [
        Failed, Failed, Terminated, Terminated, Failed, Terminated
    ]  # fmt: skip


def test_a_task_without_an_identity_always_has_another_try() -> None:
    ask = poison_tasks(("a", 1))
    assert isinstance(ask.outcome(entry(""), "x"), Failed)


def test_a_reload_changes_the_limits_and_keeps_the_count() -> None:
    ask = poison_tasks(("a", 5))
    ask.outcome(entry(), "x")
    ask.apply_generation([("a", 2)])
    assert isinstance(ask.outcome(entry(), "x"), Terminated)


def test_the_tasks_that_are_remembered_are_bounded_and_the_latest_are_kept() -> None:
    ask = poison_tasks(("a", 2))
    ask.outcome(entry("first"), "x")
    for number in range(TASKS_REMEMBERED):
        ask.outcome(entry(f"n{number}"), "x")
    assert isinstance(ask.outcome(entry("first"), "x"), Failed), "forgotten"
    assert isinstance(ask.outcome(entry("n9999"), "x"), Terminated)
