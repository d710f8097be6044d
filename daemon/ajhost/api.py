"""What handler authors import: `from ajhost import Task, TerminateTask`. What a task shows, and the errors that end it.

A handler is a function of the task, of its payload, or of both:

    from ajhost import Task, TerminateTask

    @dataclass
    class Mail:
        to: str
        text: str = ""

    async def send(mail: Mail, task: Task) -> dict[str, str]:
        if not is_customer(mail.to):
            raise TerminateTask("no customer of ours")
        return {"sent": await deliver(mail, timeout=task.remaining())}

The parameter annotated `Task` (or the only one without an annotation) gets the task. Another one gets the payload:
`bytes` as it is, `str` as UTF-8, any other type validated from JSON by pydantic. A payload that does not fit ends the
task, and the router keeps the reason: `invalid payload: mail.to: field required`.

`async def` runs on the worker's event loop and is cancelled at its deadline; it must not block, because every other
task of that worker waits meanwhile. `def` runs in a thread, where blocking is fine, but which nothing can stop: give
each call in it a timeout of `task.remaining()`.

What it returns is the task's result: `bytes` as they are, `str` as UTF-8, `None` as an empty result, anything else as
JSON: models, dataclasses, dates, sets, decimals and the like included. Raising `TerminateTask` ends the task for good;
any other exception fails this attempt, and the router tries again later.

**A task may run more than once**, even after it succeeded: the answer can be lost, the machine can fail, a router can
give up waiting. So a handler must be idempotent: use `task.id` to recognise what is done already.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic

from ajhost.protocol import exact_json
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.task_record import TaskRecord
from ajhost.protocol.timestamps import to_datetime

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    _State = TypeVar("_State", default=Any)
else:  # a library of the application's own must not be shadowed by the host's version of it
    from typing import TypeVar

    _State = TypeVar("_State")


class TerminateTask(Exception):
    """Raised by a handler: no further attempt makes sense. Its text becomes the task's last error.

    For errors of every attempt (an unknown customer, a malformed payload). An error that may pass is any other
    exception.
    """


class InvalidPayload(TerminateTask, ValueError):
    """The payload does not fit the handler. It will not at the next attempt either, so it ends the task.

    A handler may also raise it for rules of its own. Its text becomes the task's last error after `invalid payload: `.
    """

    def __str__(self) -> str:
        return FailureReason.INVALID_PAYLOAD.text(super().__str__())


@dataclass(frozen=True, slots=True)
class Worker:
    """The worker process, as its lifespan sees it: `async def lifespan(worker: Worker): ... yield State(...)`."""

    slot: int
    """Its number, from 0: the same for the worker that replaces it."""
    generation: int
    """How often settings and code were loaded, this time included."""
    pid: int
    """Its process id."""


class Task(Generic[_State]):
    """One attempt at one task, as its handler sees it. Read only. `Task[State]` says of what type `state` is."""

    __slots__ = ("_ends", "_ends_at", "_payload", "_record", "_state")

    def __init__(
        self, record: TaskRecord, deadline_mono: float, payload: bytes | None = None, state: Any = None
    ) -> None:
        """`deadline_mono` is on `time.monotonic()`; `payload`, if unwrapped, replaces that of the record."""
        self._state = state
        self._record = record
        self._ends = deadline_mono
        self._ends_at: datetime | None = None
        self._payload = record.payload if payload is None else payload

    @property
    def id(self) -> str:
        """The task's unique name, the same at every attempt: the key for idempotency."""
        return self._record.id

    @property
    def type(self) -> str:
        """What kind of task it is, like `email:new`. A handler of a prefix or of everything sees several."""
        return self._record.type

    @property
    def queue(self) -> str:
        """The name of its work queue, empty if unknown."""
        return self._record.queue

    @property
    def payload(self) -> bytes:
        """The producer's payload as bytes, empty without one. It need not be JSON: see `json`."""
        return self._payload

    @property
    def state(self) -> _State:
        """What the worker's lifespan yielded; None without one."""
        state: _State = self._state
        return state

    def json(self) -> Any:
        """Returns the payload decoded from JSON; integers are exact, whatever their size.

        `ajc tasks add` stores its argument as a JSON text, so JSON that is given to it comes out here as a `str`. A
        handler with a typed payload gets the JSON in it.

        :raises InvalidPayload: the payload is empty or not JSON. Not caught, it ends the task.
        """
        if not self._payload:
            raise InvalidPayload("there is none to read as JSON")
        try:
            return exact_json.loads(self._payload)
        except ValueError as error:
            raise InvalidPayload(f"it is not JSON: {error}") from None

    @property
    def tries(self) -> int:
        """Which attempt this is, from 1."""
        return self._record.tries

    @property
    def max_tries(self) -> int:
        """How many attempts the task may have; 0 if it does not say. The queue may allow fewer."""
        return self._record.max_tries

    @property
    def created(self) -> datetime:
        """When the task was created, aware, in UTC. Raises ValueError if the producer wrote no time."""
        return to_datetime(self._record.created_ns)

    @property
    def deadline(self) -> datetime:
        """The moment by which this attempt must end, aware, in UTC, on this machine's clock.

        It is the earlier of the router's limit and the route's `timeout`, and the moment that `remaining` counts to.
        Prefer `remaining`, which does not change when the clock is set.
        """
        if self._ends_at is None:
            self._ends_at = datetime.now(UTC) + timedelta(seconds=self._ends - time.monotonic())
        return self._ends_at

    def remaining(self) -> float:
        """Returns the seconds until this attempt must end, never negative."""
        return max(self._ends - time.monotonic(), 0.0)

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The ids of the tasks that had to complete before this one."""
        return self._record.dependencies

    @property
    def dependency_results(self) -> dict[str, Any]:
        """The results of those tasks, if this one asked for them: id to `{"payload": ..., "completed": "<time>"}`.

        The payload is the JSON that was stored. For a task of a remote handler, as here, it is a text: the result in
        base64.
        """
        return self._record.dependency_results

    def __repr__(self) -> str:
        return f"<Task {self.id!r} of type {self.type!r}, try {self.tries}>"
