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
        self._last: dict[EventKind, TimelineEvent] = {}

    def add(self, kind: EventKind, text: str) -> None:
        """An event has happened; a text of several lines is shown by its first."""
        event = self._last[kind] = TimelineEvent(self._clock(), kind, text.partition("\n")[0])
        if kind is not EventKind.REPLACED:  # with a small `max_tasks` they would push out all others
            self._events.append(event)

    def last(self, kind: EventKind) -> tuple[str, float]:
        """The last event of a kind, and when it was; an empty text if there was none."""
        event = self._last.get(kind)
        return ("", 0.0) if event is None else (event.text, event.at)

    def newest_first(self) -> list[TimelineEvent]:
        """The events that are kept."""
        return list(reversed(self._events))
