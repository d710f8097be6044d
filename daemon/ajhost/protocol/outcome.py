"""The outcomes of a request, one for each: completed, failed (the router tries again) or terminated (it does not)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ajhost.protocol.reasons import FailureReason


@dataclass(slots=True)  # not frozen: made for every task, and that would triple its cost
class Completed:
    """The handler returned; `body` is stored by the router unmodified."""

    body: bytes


@dataclass(frozen=True, slots=True)
class _Error:
    """`text` begins with a stable word."""

    text: str

    @classmethod
    def because(cls, reason: FailureReason, detail: str) -> Self:
        """Makes the outcome with the reason's word in front of its text."""
        return cls(reason.text(detail))


class Failed(_Error):
    """An attempt that the router shall retry: `AJ-Error`."""

    __slots__ = ()


class Terminated(_Error):
    """An attempt that the router shall not retry: `AJ-Terminate`."""

    __slots__ = ()


Outcome = Completed | Failed | Terminated
