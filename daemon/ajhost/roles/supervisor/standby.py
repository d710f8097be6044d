"""The standby, the supervisor's own ledger and connection: answers through them for processes that died or hang, and
enqueues what they had not started, or what arrives while no worker serves (`last_resort.py`). Here such a request
waits, or is answered: refused, cancelled, or past its deadline. It starts none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence

from ajhost.adapters.linux import ledger_file
from ajhost.adapters.nats.connection import Connection
from ajhost.adapters.nats.interfaces import Received, Sink
from ajhost.core.clock_offset import ClockOffset
from ajhost.core.login_gate import LoginGate
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import CLOSE_LIMIT, POLL_INTERVAL_LAST
from ajhost.ledger.layout import MAX_REPLY, SUPERVISOR_SLOT, Identity, LedgerError, State, Word
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.frames import Message, is_one_message, is_plain_subject, message_line, reply_of, scan
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.reply_encoding import encode_reply
from ajhost.protocol.subjects import host_subjects
from ajhost.protocol.task_record import read_task
from ajhost.roles import ledger_sizes, overload
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.request_check import RequestChecker, too_large
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import TokenQueue, queue_of
from ajhost.roles.supervisor.answer_records import AnswerRecords
from ajhost.roles.supervisor.fd_store import FdStore, Key
from ajhost.roles.supervisor.nats_service import ServiceResponder

_log = logging.getLogger("ajhost.supervisor")
_SERVICE = b"$SRV."


class Standby(Sink):
    """The supervisor's ledger and connection; each new connection is kept in `fd_store`."""

    def __init__(
        self,
        spec: GenerationSpec,
        serial: int,
        queues: Sequence[TokenQueue],
        max_payload: int,
        fd_store: FdStore,
        service: ServiceResponder | None = None,
    ) -> None:
        self.directory = spec.runtime / "ledger"
        self.serial = serial
        ledger_file.make(
            self.directory,
            ledger_sizes.standby_geometry(max_payload),
            Identity(serial, SUPERVISOR_SLOT, spec.generation),
        )
        self.ledger = ledger_file.LockedLedger(self.directory, serial)
        self.ledger.words[Word.PID] = os.getpid()
        self._fd_store = fd_store
        loop = asyncio.get_running_loop()
        restart_window = RestartWindow(self.ledger)
        self._offset = ClockOffset(self.ledger)
        self._merge_restart_windows(restart_window)
        self._service = service
        self.connection = Connection(
            spec.nats,
            self.ledger,
            restart_window,
            LoginGate(self.ledger.words[Word.LOGIN_GATE :]),
            self,
            spec.connection_name("supervisor"),
            always=() if service is None else service.subjects,
        )
        self.transport = self.connection.transport
        self.producer = Producer(self.ledger, queues, loop, self._expired, renews=True)
        self._draining = ""
        self.holding = False
        """Whether new requests are kept for the next start: they get no token."""
        self.answer_records = AnswerRecords(spec.runtime, [h.route for h in spec.handlers], loop.call_soon)
        self.removed = False
        """Whether `close` has removed the ledger."""
        self.apply_generation(spec, queues)

    def _merge_restart_windows(self, restart_window: RestartWindow) -> None:
        """Takes the restart window and clock offset of earlier starts, whose requesters get answers from this one."""
        for serial in ledger_file.serials(self.directory):
            if serial < self.serial:
                with contextlib.suppress(OSError, LedgerError):
                    ledger = ledger_file.GuardedLedger(self.directory, serial)
                    if ledger.slot == SUPERVISOR_SLOT:
                        restart_window.merge(ledger)
                        self._offset.merge(ledger)
                    ledger.close()

    def apply_generation(self, spec: GenerationSpec, queues: Sequence[TokenQueue]) -> None:
        """Takes a generation's handlers, limits and queues."""
        self.producer.add_queues(queues)
        routes = [handler.route for handler in spec.handlers]
        self.answer_records.use_routes(routes)
        self.answer_records.limits.most = dict(spec.log.limits)
        self._checker = RequestChecker(
            spec.handlers, spec.workers.default_timeout, spec.signature, spec.nats.reply_prefixes, self._offset
        )
        self._queues = [queue_of(h) for h in spec.handlers]
        self.subjects = host_subjects(routes, spec.nats.catchall)
        self.group = spec.nats.queue_group
        if self._service is not None:
            self._service.use_routes(routes, self.group)
        self._backlog = max(spec.workers.backlog * spec.workers.count, ledger_sizes.HELD_BY_STANDBY // 2)

    # -- answers --------------------------------------------------------------------------------

    def answer(self, reply: bytes, outcome: Outcome, asked_at: float = 0.0) -> None:
        """Answers a request. The reply survives a reconnect. `asked_at`: as for `ReplyWriter.reply`.

        Call it before the request is revoked. When this returns, the answer is in the standby's ledger, so the next
        start answers if the supervisor dies before the kernel has it. Without a free entry it is in memory only.
        """
        if not is_plain_subject(reply):
            if reply:
                _log.error("a request cannot be answered, its reply subject is damaged: %.100r", reply)
            return
        data = encode_reply(reply, outcome, self.connection.max_payload)
        if not self.ledger.available:
            self.transport.out.publish(data, asked_at)
            return
        index = self.ledger.start_pulled(time.monotonic_ns())
        self.ledger.refuse(index, reply)
        self.transport.out.reply(index, data, asked_at)

    def answer_for(
        self, ledger: Ledger, entry: Entry, outcome: Failed | Terminated, *, stands_still: bool = False
    ) -> None:
        """Answers a request whose owner is dead or hangs, records the attempt, and revokes the request.

        `stands_still`: the owner executes nothing meanwhile, so a QUEUED request is taken back as the owner would.
        """
        if stands_still and entry.state is State.QUEUED:
            if not ledger.take_back(entry.index, entry.seq):
                return
            entry = ledger.entry(entry.index)
        if entry.state in (State.RECEIVED, State.QUEUED):
            frame = ledger.frame(entry.index)
            if ledger.state(entry.index) != (entry.seq, entry.state):
                return  # the owner has gone on meanwhile, and the frame may be another request's
            self.answer(reply_of(frame), outcome, entry.asked_at)
            self.answer_records.refused(frame, outcome.text)
        else:
            self.answer(entry.reply, outcome, entry.asked_at)
            self.answer_records.begun(ledger, entry, outcome)
        ledger.revoke(entry.index, entry.seq)

    def cancel(self, task: str, outcome: Failed | Terminated) -> bool:
        """Answers a task that waits here. Returns whether a task of that id did."""
        for index in self.producer.waiting():
            _, _, body, end, _, reply = scan(frame := self.ledger.frame(index)).messages[0]
            try:
                found = read_task(frame[body : end - 2]).id == task
            except ValueError:
                continue
            if found:
                return self.producer.take_back(index) and self._refuse(index, reply, outcome, frame)
        return False

    def _refuse(self, index: int, reply: bytes, outcome: Failed | Terminated, frame: bytes) -> bool:
        if not self.ledger.refuse(index, reply):
            self.ledger.release(index)  # the next start has it
            return False
        data = encode_reply(reply, outcome, self.connection.max_payload)
        self.transport.out.reply(index, data, self.ledger.asked_at(index))
        self.answer_records.refused(frame, outcome.text)
        return True

    def _refuse_without_entry(self, reply: bytes, text: str, frame: bytes, received_ns: int = 0) -> None:
        self.answer(reply, Failed(text), received_ns / 1e9)
        self.answer_records.refused(frame, text)

    # -- requests for the workers ---------------------------------------------------------------

    def copy(self, frame: bytes, received_ns: int) -> int | None:
        """Copies a raw frame to the standby's ledger, RECEIVED, for `enqueue`. Returns None if it refuses the request,
        or cannot answer it. Of a frame that no ledger holds the first line is enough: the request is refused.

        :param received_ns: when the request came, on the ledger's clock. Its reply is sent again if that was before a
            restart of the server, so it must not be the time of the copy.
        """
        if (line := message_line(frame)) is None:
            _log.error("a request is lost, its frame is damaged: %.100r", frame)
            return None
        _, reply, size = line
        if not reply:
            return None
        if not self._checker.answerable(reply):
            self._checker.unanswerable(reply)
            return None
        if size > len(frame) or len(reply) > MAX_REPLY:
            self._refuse_without_entry(reply, too_large(reply, size), frame, received_ns)
            return None
        if not is_one_message(frame):
            text = FailureReason.WORKER_DIED.text("and the request's frame is damaged")
            self._refuse_without_entry(reply, text, b"", received_ns)
            return None
        now_ns = time.monotonic_ns()
        index = self.ledger.receive_copy(frame, received_ns if 0 < received_ns < now_ns else now_ns)
        if index is None:
            self._refuse_without_entry(reply, overload.TOO_MANY_TAKEN_OVER, frame, received_ns)
        return index

    def enqueue(self, index: int) -> None:
        frame = self.ledger.frame(index)
        self._enqueue_checked(index, frame, scan(frame).messages[0], None)

    def _enqueue_checked(self, index: int, data: bytes, message: Message, copy: bytes | None) -> None:
        begin, header, body, end, subject, reply = message
        now, wall_ns = time.monotonic(), time.time_ns()
        checked = self._checker.check(subject, data[header:body], data[body : end - 2], now, wall_ns)
        if isinstance(checked, Failed):
            self._refuse(index, reply, checked, data[begin:end])
        elif self._draining:
            self._refuse(index, reply, Failed(self._draining), data[begin:end])
        elif not self._keep(index, copy, checked[1], int(checked[2] * 1e9)):
            self._refuse(index, reply, Failed(overload.NO_ROOM), data[begin:end])

    def _keep(self, index: int, copy: bytes | None, handler: int, deadline_ns: int) -> bool:
        self.ledger.set_route(index, handler)
        if self.holding:
            return self.producer.hold(index, copy, deadline_ns)
        return self.producer.enqueue(index, copy, self._queues[handler], deadline_ns)

    # -- Sink -----------------------------------------------------------------------------------

    async def opened(self, sock: socket.socket) -> None:
        """Has systemd store a new connection, as the other process of `Sink.opened`."""
        self._fd_store.keep(Key(self.serial, self.ledger.words[Word.EPOCH]), sock)

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        """Handles what the connection received: requests for the last resort, questions to the host as a service."""
        for index, message in requests:
            self._admit(index, data, message)

    def _admit(self, index: int, data: bytes, message: Message) -> None:
        begin, _, _, end, subject, reply = message
        if not self._checker.answerable(reply):
            self._checker.unanswerable(reply)
            self.ledger.release(index)
            return
        if subject.startswith(_SERVICE):
            self.ledger.release(index)
            self._answer_as_service(subject, reply)
            return
        if len(reply) > MAX_REPLY or end > len(data):
            self._refuse(index, reply, Failed(too_large(reply, end - begin)), data[begin:end])
        elif text := overload.backlog_full(self.producer, self._backlog):
            self._refuse(index, reply, Failed(text), data[begin:end])
        else:
            self._enqueue_checked(index, data, message, data[begin:end])

    def _answer_as_service(self, subject: bytes, reply: bytes) -> None:
        body = None if self._service is None else self._service.answer(subject.decode())
        if body is not None:
            data = encode_reply(reply, Completed(body), self.connection.max_payload)
            self.transport.out.publish(data, time.monotonic())

    def refuse(self, reply: bytes) -> None:
        """Refuses a request for which no entry was free."""
        if not self._checker.answerable(reply):
            self._checker.unanswerable(reply)
            return
        self._refuse_without_entry(reply, overload.NO_ENTRY, b"")

    def _expired(self, index: int) -> None:
        text = self._draining or FailureReason.DEADLINE_EXCEEDED.text("no worker became free in time")
        frame = self.ledger.frame(index)
        self._refuse(index, reply_of(frame), Failed(text), frame)

    # -- life -----------------------------------------------------------------------------------

    def beat(self, now_ns: int) -> None:
        """Does the standby's part of a tick."""
        self.ledger.words[Word.HEARTBEAT] = now_ns
        self.producer.expire(now_ns)
        self.transport.out.confirm()
        self.transport.pause_or_resume()
        self.answer_records.limits.tick()

    @property
    def idle(self) -> bool:
        """Whether the next tick has nothing to do here: no request waits, and every reply is confirmed."""
        out = self.transport.out
        return not (self.producer.count or out.retransmit.unconfirmed or out.retransmit.repeating)

    def reject_waiting(self, text: str) -> None:
        """Answers with `text` what waits here, now and from now on: the host stops."""
        self._draining = text
        self.producer.reject_waiting()

    async def flush(self, patience: float) -> None:
        """Waits until the server and the requesters should have the answers, at most `patience` seconds."""
        end, out = time.monotonic() + patience, self.transport.out
        sent = out.retransmit
        while (out.unsent or sent.unconfirmed or sent.repeating) and time.monotonic() < end:
            out.confirm()
            await asyncio.sleep(POLL_INTERVAL_LAST)

    async def close(self, patience: float) -> bool:
        """Flushes and closes the connection, and removes the ledger if it is empty.

        Returns False when requests or answers are left: the ledger stays for the next start.
        """
        await self.flush(patience)
        self.transport.out.release_held()
        self.answer_records.close()
        clean = not self.transport.out.unsent and not self.ledger.in_use()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_LIMIT):
                await self.connection.close()
        if clean:
            self.removed = True
            ledger_file.remove(self.directory, self.serial)
        return clean
