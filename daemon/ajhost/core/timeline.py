"""The host's recent events (starts, reloads, deaths), which the supervisor keeps in memory for the page and status."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_KEPT = 200


class EventKind(Enum):
    """The kind of an event; the page shows the values."""

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
        """Adds an event; of a text only the first line is kept."""
        event = self._last[kind] = TimelineEvent(self._clock(), kind, text.partition("\n")[0])
        if kind is not EventKind.REPLACED:  # with a small `max_tasks` they would displace all other events
            self._events.append(event)

    def last(self, kind: EventKind) -> tuple[str, float]:
        """Returns the text and the time of the last event of a kind; an empty text if there was none."""
        event = self._last.get(kind)
        return ("", 0.0) if event is None else (event.text, event.at)

    def newest_first(self) -> list[TimelineEvent]:
        """Returns the events that are kept, newest first."""
        return list(reversed(self._events))
