"""The worker: joins the queue group, runs handlers, answers, beats, and leaves in order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence

from ajhost.adapters import log_outputs
from ajhost.adapters.linux import proc
from ajhost.adapters.linux.channel import Channel, ChannelClosed, ChannelFull
from ajhost.adapters.linux.ledger_file import LockedLedger
from ajhost.adapters.nats.connection import Connection
from ajhost.adapters.nats.interfaces import Received, Sink
from ajhost.core.clock_offset import ClockOffset
from ajhost.core.login_gate import LoginGate
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import (
    CONFIRM_INTERVAL,
    HEARTBEAT_INTERVAL,
    POLL_INTERVAL,
    SOCKET_STORED_LIMIT,
    nanoseconds,
)
from ajhost.ledger.layout import Phase, Word
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.protocol.subjects import host_subjects
from ajhost.roles.attempt_records import Attempts
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.messages import (
    FOR_WORKER,
    AccessOrder,
    BadMessage,
    CancelOrder,
    CancelResult,
    FinishOrder,
    FromWorker,
    HurryOrder,
    LeaveOrder,
    MembershipOrder,
    NewSocket,
    SocketStored,
    StacksOrder,
    StacksResult,
    StartFailed,
    ToWorker,
    encode,
)
from ajhost.roles.process_specs import GenerationSpec, WorkerSpec, connection_name
from ajhost.roles.request_check import RequestChecker
from ajhost.roles.shared_queue.consumer import Consumer
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.worker import forked_child
from ajhost.roles.worker.deadline_stacks import DeadlineStacks
from ajhost.roles.worker.drain import Drain
from ajhost.roles.worker.executor import Executor, ExecutorEvents
from ajhost.roles.worker.heartbeat_jobs import HeartbeatJobs
from ajhost.roles.worker.intake import Intake
from ajhost.roles.worker.leftovers import Background
from ajhost.roles.worker.lifespan import LifespanFailed, LifespanRunner
from ajhost.roles.worker.orphaned import Orphaned
from ajhost.roles.worker.queue_group import GroupMembership
from ajhost.roles.worker.request import StuckReason
from ajhost.roles.worker.responder import Responder
from ajhost.roles.worker.retirement import Retirement
from ajhost.roles.worker.route import make_routes
from ajhost.roles.worker.signals import SignalKeeper
from ajhost.roles.worker.thread_pool import prepare_for_threads
from ajhost.roles.worker.watchdog import Watchdog

_log = logging.getLogger("ajhost.worker")
_START_FAILED = os.EX_TEMPFAIL  # the exit status
_CONFIRM_NS = nanoseconds(CONFIRM_INTERVAL)


class Worker(ExecutorEvents, Sink):
    """One worker process."""

    def __init__(
        self,
        spec: GenerationSpec,
        worker_spec: WorkerSpec,
        handlers: Mapping[str, LoadedHandler],
        channel: Channel,
        queues: Sequence[TokenQueue],
        ledger: LockedLedger,
        restart_window: RestartWindow,
        offset: ClockOffset,
        gate: LoginGate,
        attempts: Attempts,
        stacks: DeadlineStacks,
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        routes, permits = make_routes(spec, handlers)
        workers = spec.workers
        self._watchdog = Watchdog(workers.kill_grace)
        self._checker = RequestChecker(
            spec.handlers, workers.default_timeout, spec.signature, spec.nats.reply_prefixes, offset
        )
        name = connection_name(f"worker {worker_spec.slot}", spec.runtime)
        self._connection = Connection(spec.nats, ledger, restart_window, gate, self, name)
        self._transport = self._connection.transport
        transport = self._transport
        self._responder = Responder(ledger, transport.out, transport.in_buffer, attempts)
        self._executor = Executor(
            self._loop,
            capacity=workers.concurrency,
            kill_grace=workers.kill_grace,
            flush_after=self._transport.out.flush_after,
            events=self,
            stacks=stacks,
        )
        self._orphaned = Orphaned(self._leave)
        self._retirement = Retirement(self._executor, workers.max_tasks, self._orphaned, self._tell)
        self._producer = Producer(ledger, queues, self._loop, self._expired)
        self._intake = Intake(
            self._responder,
            self._checker,
            routes,
            self._executor,
            self._producer,
            self._watchdog,
            attempts,
            self._retirement,
            backlog=workers.backlog,
        )
        self._attempts = attempts
        self._consumer = Consumer(
            ledger, spec.runtime / "ledger", queues, self._loop, self._has_capacity, self._intake.dequeued,
            self._intake.reclaimed, permits,
        )  # fmt: skip
        subjects = tuple(host_subjects((h.route for h in spec.handlers), spec.nats.catchall))
        self._group = GroupMembership(
            self._connection, subjects, spec.nats.queue_group, self._tell, joins=worker_spec.joins
        )
        self._kept = asyncio.Event()
        self._leaving, self._finish, self._hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._confirmed_ns = 0
        self._pull_while_leaving = True
        self._heartbeat_jobs = HeartbeatJobs(
            ledger, self._responder, self._executor, self._intake, self._checker, self._consumer, self._loop
        )
        if any(not h.is_async for h in handlers.values()):
            prepare_for_threads()
        self._lifespan = LifespanRunner.of(spec, worker_spec, self._retirement.ask, self.beat_from_thread)
        self._background: Background | None = None
        """Once it has joined: what handlers leave behind, and not what the application's start has."""

    # -- the transport's side (adapters.nats.transport.Sink) -------------------------------------

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        self._intake.admit(data, requests)

    def before_send(self) -> None:
        self._responder.count()

    def not_told(self, index: int, before: type[Outcome], outcome: Failed | Terminated) -> None:
        self._responder.take_back(index, before, outcome)

    def refuse(self, reply: bytes) -> None:
        self._intake.refuse(reply)

    async def opened(self, sock: socket.socket) -> None:
        """Passes a duplicate of a new NATS socket to the supervisor, and waits until that says that it has it.

        Without a supervisor the connection is for replies only.
        """
        self._kept.clear()
        try:
            async with asyncio.timeout(SOCKET_STORED_LIMIT):
                await self._pass_on(sock)
                await self._kept.wait()
        except TimeoutError:
            pass
        except ChannelClosed:
            self._orphaned.alone = True  # which the channel's reader is about to find as well
        if self._orphaned.alone:
            self._leave()
            await self._connection.leave()

    async def _pass_on(self, sock: socket.socket) -> None:
        while True:
            try:
                return self._channel.send(encode(NewSocket(self._ledger.words[Word.EPOCH])), [sock.fileno()])
            except ChannelFull:
                await asyncio.sleep(POLL_INTERVAL)

    def limited(self, max_payload: int) -> None:
        self._responder.max_payload = max_payload

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serves until told to leave; the exit status."""
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._signals = SignalKeeper(
            self._loop, lambda: self._retirement.ask("SIGTERM"), self._retirement.ask
        )
        forked_child.watch(self._loop)
        self._beat()
        serving = asyncio.create_task(self._serve())
        leaving = asyncio.create_task(self._leaving.wait())
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and isinstance(serving.exception(), LifespanFailed):
            return await self._fail_to_start(serving.exception())
        if serving.done():
            serving.result()  # an error here is a bug: it ends the process, and the supervisor answers
            await leaving
        leaving.result()
        serving.cancel()
        return await self._drain()

    async def _fail_to_start(self, error: BaseException | None) -> int:
        """The application's start has failed: says so, and ends, to be tried again after a pause."""
        _log.error("%s", error, exc_info=error.__cause__ if error is not None else None)
        self._tell(StartFailed(str(error)))
        return _START_FAILED

    async def _serve(self) -> None:
        if self._lifespan is not None:
            self._watchdog.extend(time.monotonic() + self._spec.python.start_timeout)
            self._intake.state = await self._lifespan.enter()
        self._background = Background(self._loop)
        # here, since with the first task it is no longer to be told from what that takes
        self._ledger.words[Word.SIZE_AT_START] = proc.resident_bytes(os.getpid())
        await self._group.connect()
        if not self._leaving.is_set():
            self._ledger.words[Word.PHASE] = Phase.SERVING
            await self._group.begin()  # first: only one that serves can have served all that it may
            self._consumer.begin()

    def beat_from_thread(self) -> None:
        """Where the loop may stand still: while the lifespan is entered or left, and at the very end."""
        self._ledger.words[Word.HEARTBEAT] = time.monotonic_ns()

    def _beat(self) -> None:
        now = time.monotonic_ns()
        self._ledger.words[Word.HEARTBEAT] = now
        self._heartbeat_jobs.count()
        self._producer.expire(now)
        if now - self._confirmed_ns > _CONFIRM_NS:
            self._confirmed_ns = now
            self._transport.out.confirm()
            log_outputs.report_lost()
            self._attempts.tick()
        self._transport.resume()
        self._consumer.refresh()  # entries may have become free without a slot
        if self._connection.up.is_set():
            # the supervisor takes over by the epoch, after a stray write too
            words, epoch = self._ledger.words, self._transport.epoch
            words[Word.EPOCH] = words[Word.SUBSCRIBED] = epoch
        self._watchdog.beat()
        self._signals.keep()
        self._heartbeat_jobs.tick(now)
        self._loop.call_later(HEARTBEAT_INTERVAL, self._beat)

    def _readable(self) -> None:
        try:
            for found, _ in self._channel.received():
                try:
                    self._obey(FOR_WORKER.decode(found))
                except BadMessage as error:
                    _log.error("the supervisor sent %s", error)
        except ChannelClosed:
            self._loop.remove_reader(self._channel.fileno())
            self._kept.set()
            self._orphaned.channel_closed(asked_to_retire=self._retirement.asked)

    def _obey(self, message: ToWorker) -> None:
        match message:
            case SocketStored(epoch):
                if epoch == self._ledger.words[Word.EPOCH]:
                    self._kept.set()
            case LeaveOrder(stop):
                self._pull_while_leaving = stop
                if stop:
                    self._retirement.lift_limit()
                else:
                    self._finish.set()
                self._leaving.set()
            case MembershipOrder(joins):
                self._group.set(joins)
            case FinishOrder():
                self._finish.set()
            case CancelOrder(task, terminate, text):
                outcome = Terminated(text) if terminate else Failed(text)
                found = self._intake.cancel(task, outcome)
                # before anybody is told: if this process dies then, the router has still been answered
                self._transport.out.flush()
                self._tell(CancelResult(task, found))
            case AccessOrder(nats, move):
                self._connection.reconfigure(nats, move=move)
            case StacksOrder(task):
                self._tell(StacksResult(task, self._executor.stacks(task)))
            case HurryOrder():
                self._hurry.set()

    def _tell(self, message: FromWorker) -> None:
        try:
            self._channel.send(encode(message))
        except ChannelClosed:
            pass  # the end of the channel is seen by its reader
        except ChannelFull:
            self._loop.call_later(POLL_INTERVAL, self._tell, message)

    def _has_capacity(self, queue: str) -> bool:
        """Whether a request of that queue could be started, and its answer leave before long."""
        return not self._transport.out.flooded and self._intake.has_capacity(queue)

    def slot_freed(self) -> None:
        self._consumer.freed()

    def _expired(self, index: int) -> None:
        self._intake.expired(index)

    def code_stuck(self, reason: StuckReason) -> None:
        del reason
        self._retirement.ask("a handler that cannot be stopped")

    def _leave(self) -> None:
        self._finish.set()
        self._leaving.set()

    # -- the end --------------------------------------------------------------------------------

    async def _drain(self) -> int:
        self._ledger.words[Word.PHASE] = Phase.LEAVING
        if not self._pull_while_leaving:
            self._consumer.end()
        drain = Drain(
            self._ledger, self._connection, self._group, self._producer, self._consumer, self._intake,
            self._finish, self._hurry, self._tell,
        )  # fmt: skip
        end = self._loop.time() + self._spec.workers.drain_timeout
        await drain.run(end)
        if self._background is not None:
            await self._background.wait(end, self._hurry)
        if self._lifespan is not None:
            self._watchdog.extend(time.monotonic() + self._spec.python.stop_timeout)
            await self._lifespan.exit()
        self._heartbeat_jobs.count()
        self._attempts.close()
        drain.close()
        return 0
