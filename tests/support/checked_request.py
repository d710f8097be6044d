"""Requests whose every step is compared with the table of `roles/worker/request.py`: an illegal one raises.

`tests/conftest.py` puts it in the place of the methods in this process and in those that it forks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ajhost.roles.worker.request import TRANSITIONS, Attempt, Request

MAY_DECLINE = {"begin", "returned"}
"""Events that leave the phase as it is when they come too late."""


class IllegalPhase(AssertionError):
    """A step that the table does not have for the phase in which the request was."""


def checked(event: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, between two looks at the phase."""
    sources, target = TRANSITIONS[event]

    @functools.wraps(method)
    def step(self: Attempt, *arguments: Any) -> Any:
        before = self.phase
        if before not in sources and event not in MAY_DECLINE:
            raise IllegalPhase(f"{event} of one that is {before.name}")
        result = method(self, *arguments)
        # a thread may have gone on meanwhile
        if event in MAY_DECLINE and before not in sources and self.phase is target is not before:
            raise IllegalPhase(f"{event} moved one that was {before.name}")
        return result

    return step


def install() -> None:
    """Has every request of this process checked from now on."""
    for owner in (Attempt, Request):
        for event in TRANSITIONS.keys() & vars(owner).keys():
            method = vars(owner)[event]
            if not hasattr(method, "__wrapped__"):
                setattr(owner, event, checked(event, method))
