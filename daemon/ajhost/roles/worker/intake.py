"""What becomes of a request when it arrives: started, enqueued to the shared queue, or refused. Decided here, at
once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ajhost.api import Task
from ajhost.ledger.layout import MAX_REPLY
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.frames import Message, scan
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.task import TaskRecord, unwrap
from ajhost.protocol.wire import as_told, encode_reply, is_result
from ajhost.roles.attempts import Attempts
from ajhost.roles.request_check import NOTHING_KNOWN, About, CheckedRequest, RequestChecker
from ajhost.roles.shared_queue.consumer import NO_ORIGIN, ClaimedRequest, Origin
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.queue import DEFAULT
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.request import Request, Route, StuckReason
from ajhost.roles.worker.watchdog import Watchdog

_log = logging.getLogger("ajhost.worker")


class Out(Protocol):
    """Where replies go (`adapters.nats.reply_writer.ReplyWriter`)."""

    def reply(self, index: int, data: bytes) -> None:
        """A reply whose ledger entry is released once the server has it."""

    def publish(self, data: bytes) -> None:
        """A reply without an entry."""


class Counts:
    """What this worker did since it began; copied to its ledger at each beat."""

    __slots__ = (
        "busy",
        "completed",
        "failed",
        "lent",
        "pulled",
        "received",
        "refused",
        "stuck",
        "terminated",
    )

    def __init__(self) -> None:
        self.received = self.completed = self.failed = self.terminated = 0
        self.refused = self.lent = self.pulled = self.stuck = 0
        self.busy = 0.0


class Intake:
    """Decides, starts, and answers. `on_stuck` is told of a thread or task that does not end at its deadline."""

    def __init__(
        self,
        ledger: LedgerWriter,
        checker: RequestChecker,
        routes: Sequence[Route],
        *,
        concurrency: int,
        backlog: int,
        max_tasks: int,
        on_worn: Callable[[], None],
        on_stuck: Callable[[StuckReason], None],
        on_free: Callable[[], None],
        watchdog: Watchdog,
        attempts: Attempts,
    ) -> None:
        self._ledger = ledger
        self._check, self._about = checker.check, checker.about
        self._answerable, self._unanswerable = checker.answerable, checker.unanswerable
        self._routes = routes
        self._limited = {r.queue: r for r in routes if r.queue != DEFAULT}
        self._concurrency = concurrency
        self._backlog = backlog
        self._slots = concurrency
        self._left = max_tasks
        """How many more tasks may start here; 0: without a limit."""
        self._on_worn = on_worn
        self._on_stuck = on_stuck
        self._on_free = on_free
        self._draining = ""
        self._watchdog = watchdog
        self._attempts = attempts
        self._in_buffer: set[Request] = set()
        """Requests that have not begun, which lie in the chunk."""
        self._beginning = threading.Lock()
        self.max_payload = 1 << 20
        self.counts = Counts()

    def wire(self, out: Out, producer: Producer, executor: Executor) -> None:
        """Joins the parts that need each other."""
        self._out, self._producer, self._executor = out, producer, executor

    # -- requests from our own connection -------------------------------------------------------

    def admit(self, index: int, data: bytes, message: Message) -> None:
        """Decides about one request of a chunk. Its frame may be overwritten after `before_buffer_reuse`."""
        begin, header, body, end, subject, reply = message
        self.counts.received += 1
        if self._answerable(reply) is None:
            self._ignore(index, reply)
            return
        if len(reply) > MAX_REPLY:
            text = FailureReason.BAD_REQUEST.text(f"a reply subject of more than {MAX_REPLY} bytes")
            self._refuse(index, reply, text, is_new=True)
            return
        if end > len(data):
            text = FailureReason.BAD_REQUEST.text(f"{end} bytes are more than this worker can hold")
            self._refuse(index, reply, text, is_new=True)
            return
        checked = self._check(subject, data[header:body], data[body : end - 2])
        if isinstance(checked, Failed):
            about = self._about(subject, data[body : end - 2])
            self._refuse(index, reply, checked.text, about, is_new=True)
            return
        record, handler, deadline, now = checked
        self._attempts.received(handler)
        route = self._routes[handler]
        if self._executor.busy < self._concurrency and route.busy < route.limit:
            self._start(index, reply, record, route, deadline, now, None)
            return
        if self._producer.full(self._backlog):
            text = FailureReason.OVERLOADED.text(f"{self._backlog} requests wait already")
            self._refuse(index, reply, text, (record, handler))
        elif self._producer.enqueue(
            index, data[begin:end], route.queue, int(deadline * 1e9), (reply, checked)
        ):
            self.counts.lent += 1
        else:
            text = FailureReason.OVERLOADED.text("no room for a request of this size")
            self._refuse(index, reply, text, (record, handler))

    def has(self, index: int) -> bool:
        """Whether somebody deals with the request of an entry: it waits, or it runs and has no answer yet."""
        return self._producer.has(index) or self._executor.has(index)

    def before_buffer_reuse(self) -> None:
        """The chunk is about to be overwritten: what lies there and has not begun counts as started from now on."""
        if self._in_buffer:
            for request in tuple(self._in_buffer):
                self.begin(request)

    def refuse(self, reply: bytes) -> None:
        """A request that has no ledger entry: its connection ended while none was free."""
        self.counts.received += 1
        if self._answerable(reply) is None:
            self._unanswerable(reply)
            return
        self.counts.refused += 1
        text = FailureReason.OVERLOADED.text("no room in the ledger")
        self._attempts.received(None)
        self._attempts.refused(None, text)
        self._out.publish(encode_reply(reply, Failed(text), self.max_payload))

    def expired(self, index: int) -> None:
        """An enqueued request that nobody started in time (or, while draining, that nobody will)."""
        text = self._draining or FailureReason.DEADLINE_EXCEEDED.text("no slot became free in time")
        _, _, body, end, subject, reply = scan(frame := self._ledger.frame(index)).messages[0]
        self._refuse(index, reply, text, self._about(subject, frame[body : end - 2]))

    # -- requests from the shared queue ---------------------------------------------------------

    def has_capacity(self, queue: str) -> bool:
        """Whether a request of that queue could be started now."""
        if self._executor.busy >= self._concurrency or not self._ledger.available:
            return False
        limited = self._limited.get(queue)
        return limited is None or limited.busy < limited.limit

    def pulled(self, frame: bytes, claimed: ClaimedRequest) -> None:
        """Starts a request that waited in somebody's ledger. Our entry is written before the other is given up."""
        index = self._ledger.start_pulled(time.monotonic_ns())
        self._pull(index, *self._read(frame), claimed)

    def reclaimed(self, claimed: ClaimedRequest) -> None:
        """Starts a request of ours that waited, as nobody was quicker to take it."""
        index = claimed.token.entry
        self._pull(index, *(self._producer.withdraw(index) or self._read(self._ledger.frame(index))), claimed)

    def _pull(
        self, index: int, reply: bytes, checked: CheckedRequest | Failed, claimed: ClaimedRequest
    ) -> None:
        self.counts.pulled += 1
        if isinstance(checked, Failed):
            self._deny(index, reply, checked.text, NOTHING_KNOWN, claimed)
            return
        record, handler, deadline, _ = checked
        # a task without a header keeps the deadline that it had when it came
        deadline = min(deadline, claimed.token.deadline_ns / 1e9)
        self._start(index, reply, record, self._routes[handler], deadline, time.monotonic(), claimed)

    def _read(self, frame: bytes) -> tuple[bytes, CheckedRequest | Failed]:
        """The reply subject of a request that waited, and what it asks for."""
        _, header, body, end, subject, reply = scan(frame).messages[0]
        return reply, self._check(subject, frame[header:body], frame[body : end - 2])

    # -- running --------------------------------------------------------------------------------

    def _start(
        self,
        index: int,
        reply: bytes,
        record: TaskRecord,
        route: Route,
        deadline: float,
        now: float,
        claimed: ClaimedRequest | None,
    ) -> None:
        """Hands a request to its handler. It counts as started when that begins, and until then others may take it."""
        handler = route.handler
        payload = None
        if handler.unwrap:
            try:
                payload = unwrap(record.payload)
            except ValueError as error:
                self._deny(
                    index, reply, FailureReason.BAD_REQUEST.text(str(error)), (record, route.index), claimed
                )
                return
        self._ledger.set_deadline(index, int(deadline * 1e9))
        route.busy += 1
        if self._left:
            self._left -= 1
            if not self._left:
                self._concurrency = 0  # what comes from now on is for others
                self._on_worn()
        if deadline > self._watchdog.horizon:
            self._watchdog.extend(deadline)
        task = Task(record, deadline, payload)
        request = Request(handler, record, task, deadline, now, route, index, reply, claimed)
        if claimed is None:
            self._in_buffer.add(request)
        elif claimed.last or (claimed.own and not handler.is_async):
            self.begin(request)  # nor may the room in the store be given back by a thread
        self._executor.start(request)

    def lift_limit(self) -> None:
        """The whole host stops: nobody comes after this worker, so it starts whatever is left."""
        self._left, self._concurrency = 0, self._slots

    def begin(self, request: Request) -> bool:
        """STARTED, written immediately before a handler's first instruction, or before the answer if that comes first.

        False: somebody else has the request by now, as this process had been stopped. For the loop and for threads.
        """
        if request.handler.is_async:
            return self._begin(request)
        with self._beginning:  # the loop may have to begin what a thread is about to
            return self._begin(request)

    def _begin(self, request: Request) -> bool:
        mine, claimed = request.owned, request.claimed
        if mine is not None:
            return mine
        if claimed is None:
            mine = request.owned = self._enter(request, NO_ORIGIN)
            self._in_buffer.discard(request)
        else:
            mine = request.owned = claimed.begin(lambda origin: self._enter(request, origin))
            if claimed.own:
                self._ledger.drop_frame(request.index)
        return mine

    def _enter(self, request: Request, origin: Origin) -> bool:
        record = request.record
        if not request.begun:
            request.begun = time.monotonic()
        return self._ledger.start(
            request.index,
            int(request.begun * 1e9),
            request.reply,
            record.id.encode(),
            record.type.encode(),
            request.route.index,
            record.tries,
            origin,
        )

    def finish(self, request: Request, outcome: Outcome) -> None:
        """The one answer to a started request."""
        if not (request.owned or self.begin(request)):
            self._lose(request)
            return
        counts = self.counts
        kind = type(outcome)
        if kind is Completed:
            counts.completed += 1
        elif kind is Terminated:
            counts.terminated += 1
        else:
            counts.failed += 1
        now = time.monotonic()
        counts.busy += now - request.started
        if self._ledger.answer(request.index):
            size = request.record.size
            data = encode_reply(request.reply, outcome, self.max_payload, size)
            self._out.reply(request.index, data)
            if kind is Completed and not is_result(data):
                assert isinstance(outcome, Completed)
                outcome = as_told(outcome, self.max_payload, size)
            begun, claimed = request.begun, request.claimed
            received = request.started if claimed is None else claimed.received_ns / 1e9
            self._attempts.ended(
                request, request.route.index, outcome, begun - received, now - begun, told=request.told
            )
        else:
            self._ledger.release(request.index)  # the supervisor answered while we hung

    def freed(self, request: Request) -> None:
        """A slot is free again."""
        route = request.route
        if request.owned is False:
            self._lose(request)
        full = self._executor.busy == self._concurrency - 1 or route.busy == route.limit
        route.busy -= 1
        if full:
            self._on_free()

    def _lose(self, request: Request) -> None:
        """Somebody else has the request: its entry here is nobody's."""
        if request.index >= 0:
            self._ledger.release(request.index)
            request.index = -1

    def stuck(self, request: Request, reason: StuckReason) -> None:
        """Code that does not end: it was answered, but its slot is lost until it does."""
        self.counts.stuck += 1
        _log.error(
            "%s of route %r runs on past its deadline",
            reason.value,
            request.route.handler.route,
            extra=request.labels().extras(),
        )
        self._on_stuck(reason)

    def give_up(self, text: str) -> None:
        """The time to drain is over: everything that is left is answered with `text`."""
        for name, count in self._executor.running().items():
            _log.warning("route %r: %d tasks did not end in time", name, count)
        self._draining = text
        self._executor.cancel_all(text)
        self._producer.reject_waiting()

    def _deny(
        self, index: int, reply: bytes, text: str, about: About, claimed: ClaimedRequest | None
    ) -> None:
        """Refuses a request, and takes a pulled one from its owner first: our entry is whole before that."""

        def enter(origin: Origin) -> bool:
            return self._ledger.start(index, 0, reply, b"", b"", 0, 0, origin)

        if claimed is None or claimed.begin(enter):
            self._refuse(index, reply, text, about)
        else:
            self._ledger.release(index)

    def _ignore(self, index: int, reply: bytes) -> None:
        """A request whose answer would go where this host must not publish."""
        self._unanswerable(reply)
        self._ledger.release(index)

    def _refuse(
        self, index: int, reply: bytes, text: str, about: About = NOTHING_KNOWN, *, is_new: bool = False
    ) -> None:
        """AJ-Error without a start. `is_new`: it has not been counted as received."""
        self.counts.refused += 1
        received_ns, (record, handler) = self._ledger.received_ns(index), about
        if is_new:
            self._attempts.received(handler)
        if self._ledger.refuse(index, reply):
            self._out.reply(index, encode_reply(reply, Failed(text), self.max_payload))
            self._attempts.refused(handler, text, record, received_ns)
        else:
            self._ledger.release(index)
