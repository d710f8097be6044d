"""What happened to the host of late: starts, reloads, deaths. Kept in the supervisor's memory, for the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_KEPT = 200


class EventKind(Enum):
    """What an event is about; the values are what the page shows."""

    READY = "ready"
    RELOADED = "reloaded"
    REJECTED = "rejected"
    DEATH = "death"
    DRAINED = "drained"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """`at` is seconds since 1970; `text` is one line without control characters."""

    at: float
    kind: EventKind
    text: str


class Timeline:
    """The last events, bounded. `clock`: seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: deque[TimelineEvent] = deque(maxlen=_KEPT)

    def add(self, kind: EventKind, text: str) -> None:
        """An event has happened; a text of several lines is shown by its first."""
        self._events.append(TimelineEvent(self._clock(), kind, text.partition("\n")[0]))

    def last(self, kind: EventKind) -> tuple[str, float]:
        """The last event of a kind that is kept, and when it was; an empty text if there was none."""
        return next(((e.text, e.at) for e in reversed(self._events) if e.kind is kind), ("", 0.0))

    def newest_first(self) -> list[TimelineEvent]:
        """The events that are kept."""
        return list(reversed(self._events))
