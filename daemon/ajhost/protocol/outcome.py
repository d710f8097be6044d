"""What can become of a request: exactly one of these, whatever happened."""

from __future__ import annotations

from dataclasses import dataclass

from ajhost.protocol.reasons import FailureReason


@dataclass(slots=True)  # not frozen: made for every task, and that would triple its cost
class Completed:
    """The handler returned; `body` is stored by the router unmodified."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that the router shall retry: `AJ-Error`. `text` begins with a stable word."""

    text: str

    @classmethod
    def because(cls, reason: FailureReason, detail: str) -> Failed:
        """The outcome with the reason's word in front."""
        return cls(reason.text(detail))


@dataclass(frozen=True, slots=True)
class Terminated:
    """No further try makes sense: `AJ-Terminate`."""

    text: str

    @classmethod
    def because(cls, reason: FailureReason, detail: str) -> Terminated:
        """The outcome with the reason's word in front."""
        return cls(reason.text(detail))


Outcome = Completed | Failed | Terminated
