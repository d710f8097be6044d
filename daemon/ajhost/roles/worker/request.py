"""A request on its way through a worker, from its start to the end of its code: one object, one table of phases. It
stores STARTED right before the handler's first instruction, and has one answer. `Attempt` is the executor's part.
"""

from __future__ import annotations

import asyncio
import threading
import time
from enum import Enum
from typing import Any

from ajhost.adapters.logs.log_record import TaskLabels
from ajhost.api import Task
from ajhost.protocol.outcome import Outcome
from ajhost.protocol.task_record import TaskRecord
from ajhost.roles.shared_queue.consumer import NO_ORIGIN, ClaimedRequest, Origin
from ajhost.roles.worker.responder import Responder
from ajhost.roles.worker.routes import Route

NEVER = float("inf")


class Phase(Enum):
    """The phases of an attempt."""

    WAITING = "for the loop's next turn, or for a thread"
    RUNNING = "its code runs, on the loop or in a thread"
    RETURNED = "its code has ended in a thread, and the outcome is on the way to the loop"
    ANSWERED = "it has its answer; its code may run on"
    ENDED = "its code has ended, and its slot is free"


# an enum's member costs a look-up that the hot path saves
WAITING, RUNNING, RETURNED, ANSWERED, ENDED = Phase

TRANSITIONS: dict[str, tuple[frozenset[Phase], Phase]] = {
    "begin": (frozenset({WAITING, RETURNED}), RUNNING),  # RETURNED: a thread's function returned an awaitable
    "returned": (frozenset({RUNNING}), RETURNED),
    "answer": (frozenset({WAITING, RUNNING, RETURNED}), ANSWERED),
    "end": (frozenset({WAITING, RETURNED, ANSWERED}), ENDED),  # not ANSWERED: another process has the request
}
"""The phases before and after each method. Tests raise at any other step."""

BEGINNING = threading.Lock()
"""Held where a thread may begin an attempt while the loop answers it."""


class StuckReason(Enum):
    """Why a handler's code runs on."""

    THREAD = "a thread, which cannot be stopped,"
    CANCELLATION = "a handler that swallowed its cancellation"


class ExecutorEvents:
    """The events of the executor, which `WorkerParts` receives. This base class ignores them."""

    def slot_freed(self) -> None:
        """Called when a slot of the worker or of a route is free after all were busy, or a permit was given back."""

    def code_stuck(self, reason: StuckReason) -> None:
        """Called when a handler's code runs on past its deadline."""


class Attempt:
    """A handler's run. The loop calls all methods; a thread that executes it calls `begin_in_thread` and `returned`."""

    __slots__ = (
        "begun",
        "deadline",
        "grace",
        "handler",
        "logged",
        "phase",
        "received",
        "record",
        "route",
        "stuck",
        "task",
        "work",
    )  # fmt: skip

    def __init__(self, route: Route, record: TaskRecord, task: Task, deadline: float, received: float) -> None:
        """`task` is what the handler sees of `record`. Times are monotonic seconds."""
        self.route = route
        self.handler = route.handler
        self.record = record
        self.task = task
        self.deadline = deadline
        self.received = received
        self.phase = WAITING
        self.begun = 0.0
        """When its handler began; 0.0 before that."""
        self.logged = False
        """Whether its outcome is in the log."""
        self.stuck: StuckReason | None = None
        self.grace = NEVER
        """When code that was cancelled must have ended."""
        self.work: asyncio.Task[None] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether no other process has it, so that the answer given here counts."""
        return True

    def begin(self) -> bool:
        """Moves to RUNNING, immediately before the handler's first instruction. False: answered; do not run it."""
        if self.phase is WAITING or self.phase is RETURNED:
            self.phase = RUNNING
            return True
        return False

    def begin_in_thread(self) -> bool:
        """Calls `begin` under the lock, in a thread: the loop may answer at the same time."""
        with BEGINNING:
            return self.begin()

    def returned(self) -> None:
        """Moves to RETURNED, when the thread is done with it."""
        with BEGINNING:
            if self.phase is RUNNING:
                self.phase = RETURNED

    def answer(self, outcome: Outcome) -> Phase:
        """Gives the one answer. Returns the phase before it, which says whether code runs that must be cancelled."""
        del outcome
        return self._answered()

    def _answered(self) -> Phase:
        if self.handler.is_async:
            before, self.phase = self.phase, ANSWERED
        else:
            with BEGINNING:  # a thread either has begun before this, or does not begin
                before, self.phase = self.phase, ANSWERED
        return before

    def end(self) -> None:
        """Moves to ENDED, when the code has ended or is not to run."""
        self.phase = ENDED

    def labels(self) -> TaskLabels:
        record = self.record
        took = time.monotonic() - self.received
        return TaskLabels(record.id, record.type, self.handler.route, record.tries, took)

    @property
    def thread_name(self) -> str:
        """The name of the thread that runs it, if a thread does."""
        return f"{self.handler.route or 'catch-all'} {self.record.id}"


class Request(Attempt):
    """An attempt at a task from the wire, with its ledger entry.

    `came`: when it came to this host (monotonic seconds). `owned`: whether it was still this worker's when it began;
    None before that.
    """

    __slots__ = ("came", "index", "owned", "reply", "responder")

    def __init__(
        self,
        responder: Responder,
        index: int,
        reply: bytes,
        record: TaskRecord,
        task: Task,
        route: Route,
        deadline: float,
        received: float,
    ) -> None:
        # not by `super().__init__`, which would be one call more for each request
        self.route = route
        self.handler = route.handler
        self.record = record
        self.task = task
        self.deadline = deadline
        self.received = self.came = received
        self.phase = WAITING
        self.begun = 0.0
        self.logged = False
        self.stuck = None
        self.grace = NEVER
        self.work = None
        self.responder = responder
        self.index = index
        self.reply = reply
        self.owned: bool | None = None

    @property
    def is_ours(self) -> bool:
        """False if another process has it: the supervisor moved it while this worker hung, or the claim failed."""
        return self.owned is not False

    def begin(self) -> bool:
        """Moves to RUNNING and stores STARTED. False: it is answered, or another process has the request by now."""
        if self.phase is not WAITING and self.phase is not RETURNED:
            return False
        owned = self.owned
        if owned is None:
            owned = self._own()
        if owned:
            self.phase = RUNNING
        return owned

    def count_as_started(self) -> None:
        """Stores STARTED before the handler begins: its frame is to be overwritten, or its token's place is needed."""
        with BEGINNING:
            if self.owned is None:
                self._own()

    def _own(self, origin: Origin = NO_ORIGIN) -> bool:
        """Stores STARTED. Returns whether the request is still this worker's."""
        record, begun, responder = self.record, self.begun, self.responder
        if not begun:
            begun = self.begun = time.monotonic()
        self.owned = owned = responder.ledger.start(
            self.index, int(begun * 1e9), self.reply, record.id.encode(), record.type.encode(), self.route.index,
            record.tries, origin,
        )  # fmt: skip
        # last: of a request that is in the set, the loop waits (BEGINNING) for STARTED before it overwrites the frame
        responder.in_buffer.discard(self)
        return owned

    def answer(self, outcome: Outcome) -> Phase:
        """Stores ANSWERED, then sends the reply. Does neither if another process has the request."""
        if self.handler.is_async:
            before, self.phase = self.phase, ANSWERED
        else:
            before = self._answered()
        if self.owned or (self.owned is None and self._own()):
            self.responder.answer(self, outcome)
        else:
            self.lose()
        return before

    def lose(self) -> None:
        """Releases the entry here, when another process has the request."""
        if self.index >= 0:
            self.responder.ledger.release(self.index)
            self.index = -1

    def end(self) -> None:
        """Moves to ENDED, and releases the entry if another process has the request."""
        self.phase = ENDED
        if self.owned is False:
            self.lose()


class PulledRequest(Request):
    """A request that waited in the shared queue."""

    __slots__ = ("_claimed",)

    def __init__(self, claimed: ClaimedRequest, *request: Any) -> None:
        """`request`: the arguments of `Request`."""
        super().__init__(*request)
        self._claimed = claimed
        self.came = claimed.received_ns / 1e9

    def _own(self, origin: Origin = NO_ORIGIN) -> bool:
        del origin  # the token has it
        claimed = self._claimed
        self.owned = owned = claimed.begin(super()._own)
        if claimed.own:
            self.responder.ledger.drop_frame(self.index)
        return owned
