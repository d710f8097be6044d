"""A ledger whose every step is compared with the table of `ledger/states.py`: an illegal one raises.

`tests/conftest.py` puts it in the place of the writer in this process and in those that it forks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from ajhost.ledger.layout import State
from ajhost.ledger.states import TRANSITIONS
from ajhost.ledger.view import Ledger
from ajhost.ledger.writer import LedgerWriter

OF_MANY = {"sent", "recall", "release_all"}
"""Events that happen to several entries in one call."""
MAKES: dict[str, Callable[[Any], list[int]]] = {
    "receive_all": lambda requests: [index for index, _ in requests],
    "start_pulled": lambda index: [index],
}
"""Events that choose their entries, and where these are in what they return."""


class IllegalStep(AssertionError):
    """An event that the table does not have for the state in which the entry was."""


def stands(ledger: Ledger, index: int) -> State:
    """The state of an entry as the table sees it."""
    seq, number = ledger.state(index)
    if number == State.FREE and seq:
        return State.RESERVED
    return State(number) if number <= State.SENT else State.DAMAGED


def check(event: str, before: State, after: State, index: int) -> None:
    """:raises IllegalStep: it is not in the table."""
    row = TRANSITIONS[event]
    if before not in row.sources:
        allowed = ", ".join(state.name for state in sorted(row.sources))
        raise IllegalStep(f"entry {index}: {event} in state {before.name}, where one of {allowed} is allowed")
    # what waited, and was answered, leaves its number behind
    freed = event == "release_all" and after is State.RESERVED and before is not State.RESERVED
    if after is not row.target and not freed:
        raise IllegalStep(f"entry {index}: {event} led to {after.name}, not to {row.target.name}")


def checked(event: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, between two looks at the entries that it is about."""

    @functools.wraps(method)
    def step(self: Ledger, *arguments: Any, **named: Any) -> Any:
        if event in MAKES:
            made = method(self, *arguments, **named)
            for index in MAKES[event](made):
                check(event, State.FREE, stands(self, index), index)  # one that was taken from the free ones
            return made
        first, *rest = arguments
        indexes = list(_indexes(first)) if event in OF_MANY else [first]
        before = [stands(self, index) for index in indexes]
        result = method(self, indexes if event in OF_MANY else first, *rest, **named)
        for index, state in zip(indexes, before, strict=True):
            check(event, state, stands(self, index), index)
        return result

    return step


def _indexes(found: Iterable[int]) -> Iterable[int]:
    return found


def install() -> None:
    """Has every ledger of this process checked from now on."""
    for event in TRANSITIONS:
        owner = LedgerWriter if hasattr(LedgerWriter, event) and event not in vars(Ledger) else Ledger
        method = vars(owner)[event]
        if not hasattr(method, "__wrapped__"):
            setattr(owner, event, checked(event, method))
