"""Composes the parts of a worker, and passes the events of one part to the part that acts on them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence

from ajhost.adapters.linux.channel import Channel
from ajhost.adapters.linux.descriptors import OwnDescriptors
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.adapters.nats.connection import Connection
from ajhost.adapters.nats.interfaces import Received, Sink
from ajhost.core.clock_offset import ClockOffset
from ajhost.core.login_gate import LoginGate
from ajhost.core.report_throttle import StacksGate
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import Word
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.protocol.subjects import host_subjects
from ajhost.roles.attempt_records import Attempts
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.messages import GenerationSpec, WorkerSpec
from ajhost.roles.request_check import RequestChecker
from ajhost.roles.shared_queue.consumer import Consumer
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.intake import Intake
from ajhost.roles.worker.queue_group import GroupMembership
from ajhost.roles.worker.request import ExecutorEvents, StuckReason
from ajhost.roles.worker.responder import Responder
from ajhost.roles.worker.retirement import STUCK, Retirement
from ajhost.roles.worker.routes import make_routes
from ajhost.roles.worker.supervisor_channel import SupervisorChannel
from ajhost.roles.worker.supervisor_gone import Ending, Watchdog
from ajhost.roles.worker.thread_pool import prepare_for_threads


class WorkerParts(ExecutorEvents, Sink):
    """The parts that `Worker`, `Heartbeat` and `Drain` use. Receives the events of transport and executor."""

    def __init__(
        self,
        spec: GenerationSpec,
        worker_spec: WorkerSpec,
        handlers: Mapping[str, LoadedHandler],
        queues: Sequence[TokenQueue],
        channel: Channel,
        ledger: LockedLedger,
        supervisor: MappedLedger,
    ) -> None:
        """`ledger`: the worker's own. `supervisor`: the supervisor's, whose words all processes of the host share."""
        self.spec = spec
        self.loop = asyncio.get_running_loop()
        self.ledger = ledger
        workers, offset = spec.workers, ClockOffset(supervisor)
        routes, permits = make_routes(spec, handlers)
        self.ending = Ending()
        self.channel = SupervisorChannel(channel, self.ending)
        self.watchdog = Watchdog(workers.kill_grace)
        self.attempts = Attempts.of(spec)
        self.checker = RequestChecker(
            spec.handlers, workers.default_timeout, spec.signature, spec.nats.reply_prefixes, offset
        )
        gate = LoginGate(supervisor.words[Word.LOGIN_GATE :])
        name = spec.connection_name(f"worker {worker_spec.slot}")
        self.connection = Connection(spec.nats, ledger, RestartWindow(supervisor), gate, self, name)
        self.transport = transport = self.connection.transport
        self.responder = Responder(ledger, transport.out, transport.in_buffer, self.attempts)
        self.executor = Executor(
            self.loop, capacity=workers.concurrency, kill_grace=workers.kill_grace,
            flush_after=transport.out.flush_after, events=self, stacks=StacksGate(supervisor.words[Word.STACKS_TOLD :]),
        )  # fmt: skip
        self.descriptors = OwnDescriptors(
            {
                "the channel to its supervisor": [channel.fileno()],
                "the shared queue": [end.fileno() for queue in queues for end in (queue.receive, queue.send)],
                "the event of its threads": [self.executor.thread_calls.fileno()],
            }
        )
        self.retirement = Retirement(self.executor, workers.max_tasks, self.ending, self.channel.tell)
        self.producer = Producer(ledger, queues, self.loop, lambda index: self.intake.expired(index))
        self.intake = Intake(
            self.responder, self.checker, routes, self.executor, self.producer, self.watchdog, self.retirement,
            backlog=workers.backlog,
        )  # fmt: skip
        self.consumer = Consumer(
            ledger, spec.runtime / "ledger", queues, self.loop, self.intake.has_capacity,
            self.intake.dequeued, self.intake.reclaimed, permits,
        )  # fmt: skip
        subjects = tuple(host_subjects((h.route for h in spec.handlers), spec.nats.catchall))
        self.group = GroupMembership(
            self.connection, subjects, spec.nats.queue_group, self.channel.tell, joins=worker_spec.joins
        )
        if any(not h.is_async for h in handlers.values()):
            prepare_for_threads()

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        self.intake.admit(data, requests)

    def before_send(self) -> None:
        self.responder.count()

    def reply_replaced(self, index: int, before: type[Outcome], outcome: Failed | Terminated) -> None:
        self.responder.take_back(index, before, outcome)

    def refuse(self, reply: bytes) -> None:
        self.intake.refuse(reply)

    def set_max_payload(self, max_payload: int) -> None:
        self.responder.max_payload = max_payload

    async def opened(self, sock: socket.socket) -> None:
        """Sends the supervisor a duplicate of the socket. Without a supervisor the connection is for replies only."""
        await self.channel.pass_on(sock, self.ledger.words[Word.EPOCH])
        if self.ending.alone:
            self.ending.leave_and_finish()
            await self.connection.leave()

    def slot_freed(self) -> None:
        self.consumer.freed()

    def code_stuck(self, reason: StuckReason) -> None:
        del reason
        self.retirement.ask(STUCK)
