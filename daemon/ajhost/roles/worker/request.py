"""A handler's run, and where in its code it is."""

from __future__ import annotations

import asyncio
import time
from enum import Enum

from ajhost.adapters.log_record import TaskLabels
from ajhost.api import Task
from ajhost.protocol.task import TaskRecord
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.shared_queue.consumer import ClaimedRequest

_NO_LIMIT = 1 << 62


class RunPhase(Enum):
    """Where the code of a handler is."""

    WAITING = "for the loop's next turn, or for a thread"
    RUNNING = "on the loop, or in a thread"
    ENDED = "in a thread, and its outcome is on the way to the loop"


# looking up an enum's member costs 70 ns, twice for each run
WAITING, RUNNING = RunPhase.WAITING, RunPhase.RUNNING


class StuckReason(Enum):
    """Why a handler's code runs on."""

    THREAD = "a thread, which cannot be stopped,"
    CANCELLATION = "a handler that swallowed its cancellation"


class Request:
    """A handler's run, with what its caller needs to know again: entry, reply subject, route, where it waited.

    `owned`: whether the request was still ours when it began; None before that. `begun`: when its handler began
    (monotonic seconds), 0.0 before that. `told`: whether its outcome is in the log.
    """

    __slots__ = (
        "answered",
        "begun",
        "claimed",
        "deadline",
        "grace",
        "handler",
        "index",
        "owned",
        "phase",
        "record",
        "reply",
        "route",
        "started",
        "stuck",
        "task",
        "told",
        "work",
    )

    def __init__(
        self,
        handler: LoadedHandler,
        record: TaskRecord,
        task: Task,
        deadline: float,
        started: float,
        route: Route,
        index: int,
        reply: bytes,
        claimed: ClaimedRequest | None = None,
    ) -> None:
        """Times are monotonic seconds. `claimed`: it waited in the shared queue."""
        self.handler = handler
        self.record = record
        self.task = task
        self.deadline = deadline
        self.started = started
        self.route = route
        self.index = index
        self.reply = reply
        self.claimed = claimed
        self.owned: bool | None = None
        self.begun = 0.0
        self.answered = self.told = False
        self.phase = WAITING
        self.stuck: StuckReason | None = None
        self.grace = 0.0
        self.work: asyncio.Task[None] | None = None

    def labels(self) -> TaskLabels:
        """What log records of the handler bear."""
        task = self.task
        took = time.monotonic() - self.started
        return TaskLabels(task.id, task.type, self.handler.route, task.tries, took)


class Route:
    """A handler as this worker runs it: how many of its tasks are running here, and where they wait otherwise."""

    __slots__ = ("busy", "handler", "index", "limit", "queue")

    def __init__(self, index: int, handler: LoadedHandler, queue: str) -> None:
        self.index = index
        self.handler = handler
        self.queue = queue
        self.limit = _NO_LIMIT if handler.concurrency is None else handler.concurrency
        self.busy = 0
