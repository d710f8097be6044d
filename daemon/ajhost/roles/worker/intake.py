"""Decides at once about each request that arrives: starts it with a `Task` (its `state` is what the lifespan yielded),
enqueues it to the shared queue, or refuses it. Answers what waits when its deadline passes, and what waits or runs when
an operator cancels it or the drain must end. Says whether a request from the queue may start: not without a free slot,
nor while too many replies wait to leave.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ajhost.adapters.nats.interfaces import Received
from ajhost.api import Task
from ajhost.ledger.layout import MAX_REPLY
from ajhost.protocol.frames import scan
from ajhost.protocol.outcome import Failed, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.task_record import TaskRecord
from ajhost.protocol.unwrap import unwrap
from ajhost.roles import overload
from ajhost.roles.request_check import NOTHING_KNOWN, About, CheckedRequest, RequestChecker, too_large
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Origin
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import DEFAULT
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.request import PulledRequest, Request
from ajhost.roles.worker.responder import Responder
from ajhost.roles.worker.retirement import Retirement
from ajhost.roles.worker.routes import Route
from ajhost.roles.worker.supervisor_gone import Watchdog

_log = logging.getLogger("ajhost.worker")


class Intake:
    """The intake of a worker: requests of its own connection, and those pulled from the shared queue."""

    def __init__(
        self,
        responder: Responder,
        checker: RequestChecker,
        routes: Sequence[Route],
        executor: Executor,
        producer: Producer,
        watchdog: Watchdog,
        retirement: Retirement,
        *,
        backlog: int,
    ) -> None:
        self._responder, self._ledger = responder, responder.ledger
        self._out, self._counts, self._in_buffer = responder.out, responder.counts, responder.in_buffer
        self._check, self._about = checker.check, checker.about
        self._answerable, self._unanswerable = checker.answerable, checker.unanswerable
        self._routes = routes
        self._limited = {r.queue: r for r in routes if r.queue != DEFAULT}
        self._executor, self._producer, self._watchdog = executor, producer, watchdog
        self._backlog = backlog
        self._retirement, self._limits_tasks = retirement, retirement.limits_tasks
        self._draining = ""
        self.state: object = None
        """What the lifespan yielded: `Task.state` of every task."""

    # -- requests from this worker's connection ---------------------------------------------------

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        """Decides about requests that were parsed together, in the order of arrival."""
        self._counts.received += len(requests)
        check, routes, executor, size = self._check, self._routes, self._executor, len(data)
        now, wall_ns = time.monotonic(), time.time_ns()
        for index, message in requests:
            begin, header, body, end, subject, reply = message
            if not self._answerable(reply):
                self._unanswerable(reply)
                self._ledger.release(index)
                continue
            if len(reply) > MAX_REPLY or end > size:
                self._responder.refuse(index, reply, too_large(reply, end))
                continue
            checked = check(subject, data[header:body], data[body : end - 2], now, wall_ns)
            if isinstance(checked, Failed):
                about = self._about(subject, data[body : end - 2])
                self._responder.refuse(index, reply, checked.text, about)
                continue
            record, handler, deadline = checked
            route = routes[handler]
            if (
                executor.busy >= executor.capacity
                or route.busy >= route.limit  # `has_room`, without a call for each request
                or (route.permits is not None and not route.permits.take())
            ):
                self._enqueue(index, data[begin:end], route, reply, checked)
            elif not self._start(index, reply, record, route, deadline, now, None) and route.permits is not None:
                route.permits.give()

    def _enqueue(self, index: int, frame: bytes, route: Route, reply: bytes, checked: CheckedRequest) -> None:
        """Puts a request that cannot start here now into the shared queue."""
        record, handler, deadline = checked
        self._ledger.set_route(index, handler)
        if text := overload.backlog_full(self._producer, self._backlog):
            self._responder.refuse(index, reply, text, (record, handler))
        elif self._producer.enqueue(index, frame, route.queue, int(deadline * 1e9), (reply, checked)):
            self._counts.enqueued += 1
        else:
            self._responder.refuse(index, reply, overload.NO_ROOM, (record, handler))

    def refuse(self, reply: bytes) -> None:
        """Refuses a request that has no ledger entry: its connection ended while no entry was free."""
        self._counts.received += 1
        if not self._answerable(reply):
            self._unanswerable(reply)
            return
        self._responder.refuse_without_entry(reply, overload.NO_ENTRY)

    def expired(self, index: int) -> None:
        """Refuses an enqueued request that no worker started in time, or, after `give_up`, that none will."""
        text = self._draining or FailureReason.DEADLINE_EXCEEDED.text("no slot became free in time")
        reply, about = self._waiting(index)
        self._responder.refuse(index, reply, text, about)

    def _waiting(self, index: int) -> tuple[bytes, About]:
        """Returns the reply subject of a request that waits in this worker's ledger, and what is known of its task."""
        _, _, body, end, subject, reply = scan(frame := self._ledger.frame(index)).messages[0]
        return reply, self._about(subject, frame[body : end - 2])

    # -- requests from the shared queue -----------------------------------------------------------

    def has_capacity(self, queue: str) -> bool:
        """Whether a request of that queue could be started now, and its answer leave before long."""
        if self._executor.busy >= self._executor.capacity or not self._ledger.available or self._out.flooded:
            return False
        limited = self._limited.get(queue)
        return limited is None or limited.has_room()

    def dequeued(self, frame: bytes, claimed: ClaimedRequest) -> bool:
        """Starts a request that waited in another process's ledger. Returns False if it was refused.

        This worker's entry is STARTED before it claims the owner's.
        """
        index = self._ledger.start_pulled(time.monotonic_ns())
        return self._pull(index, *self._read(frame), claimed)

    def reclaimed(self, claimed: ClaimedRequest) -> bool:
        """Starts a request of this worker's own ledger, whose token it has pulled. Returns False if it was refused."""
        index = claimed.token.entry
        return self._pull(index, *(self._producer.withdraw(index) or self._read(self._ledger.frame(index))), claimed)

    def _pull(self, index: int, reply: bytes, checked: CheckedRequest | Failed, claimed: ClaimedRequest) -> bool:
        self._counts.dequeued += 1
        if isinstance(checked, Failed):
            self._claim_and_refuse(index, reply, checked.text, NOTHING_KNOWN, claimed)
            return False
        record, handler, deadline = checked
        # a task without a header keeps the deadline that its owner gave it at the receipt
        deadline = min(deadline, claimed.token.deadline_ns / 1e9)
        return self._start(index, reply, record, self._routes[handler], deadline, time.monotonic(), claimed)

    def _read(self, frame: bytes) -> tuple[bytes, CheckedRequest | Failed]:
        """Returns the reply subject of a request that waited, and the result of its check."""
        _, header, body, end, subject, reply = scan(frame).messages[0]
        now, wall_ns = time.monotonic(), time.time_ns()
        return reply, self._check(subject, frame[header:body], frame[body : end - 2], now, wall_ns)

    # -- running ----------------------------------------------------------------------------------

    def _start(
        self,
        index: int,
        reply: bytes,
        record: TaskRecord,
        route: Route,
        deadline: float,
        now: float,
        claimed: ClaimedRequest | None,
    ) -> bool:
        """Hands a request to the executor. Returns False if it was refused.

        STARTED is stored when the handler begins. Until then recovery may give the request to another worker.
        """
        handler = route.handler
        payload = None
        if handler.unwrap:
            try:
                payload = unwrap(record.payload)
            except ValueError as error:
                text = FailureReason.BAD_REQUEST.text(str(error))
                self._claim_and_refuse(index, reply, text, (record, route.index), claimed)
                return False
        self._ledger.set_deadline(index, int(deadline * 1e9))
        if self._limits_tasks:
            self._retirement.started()
        if deadline > self._watchdog.horizon:
            self._watchdog.extend(deadline)
        task = Task(record, deadline, payload, self.state)
        if claimed is None:
            request = Request(self._responder, index, reply, record, task, route, deadline, now)
            self._in_buffer.add(request)
        else:
            request = PulledRequest(claimed, self._responder, index, reply, record, task, route, deadline, now)
            if claimed.last or (claimed.own and not handler.is_async):
                # the last place for a token must become free; and no thread may drop a frame from the store
                request.count_as_started()
        self._executor.start(request)
        return True

    def _claim_and_refuse(
        self, index: int, reply: bytes, text: str, about: About, claimed: ClaimedRequest | None
    ) -> None:
        """Refuses a request. Claims a pulled one from its owner first, after this worker's entry is STARTED."""

        def enter(origin: Origin) -> bool:
            return self._ledger.start(index, 0, reply, b"", b"", 0, 0, origin)

        if claimed is None or claimed.begin(enter):
            self._responder.refuse(index, reply, text, about)
        else:
            self._ledger.release(index)

    # -- before it is done ------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether the producer or the executor has the request of an entry: it waits, or it has no answer yet."""
        if self._producer.has(index):
            return True
        running = self._executor.unanswered()
        return any(isinstance(attempt, Request) and attempt.index == index for attempt in running)

    def cancel(self, task: str, outcome: Failed | Terminated) -> str:
        """Answers for the task of that id. Returns whether it was `running` or `waiting`; empty if it is not here."""
        if self._executor.cancel(task, outcome):
            return "running"
        for index in self._producer.waiting():
            reply, about = self._waiting(index)
            if about[0] is not None and about[0].id == task:
                refused = self._producer.take_back(index) and self._responder.refuse(
                    index, reply, outcome.text, about, kind=type(outcome)
                )
                return "waiting" if refused else ""  # a consumer has begun it: the supervisor asks all again
        return ""

    def give_up(self, text: str) -> None:
        """Answers everything that is left with `text`, when the drain must end."""
        for name, count in self._executor.running().items():
            _log.warning("route %r: %d tasks did not end in time", name, count)
        self._draining = text
        self._executor.cancel_all(text)
        self._producer.reject_waiting()
