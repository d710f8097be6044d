"""The supervisor's own desk: answers for the dead, lends what they had not started, and subscribes as the last resort.

It has a ledger and a connection like a worker's, but starts nothing: what it receives or inherits waits in its store
until a worker pulls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence

from ajhost.adapters import ledger_file
from ajhost.adapters.nats import Connection
from ajhost.adapters.transport import LedgerTransport
from ajhost.core.layout import MAX_REPLY, SUPERVISOR_SLOT, Identity, LedgerError, Word, geometry_for
from ajhost.core.requesters import Requesters
from ajhost.protocol.frames import Message, message_line, reply_of, scan
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.protocol.wire import encode_reply, subjects_of
from ajhost.roles.judge import Judge
from ajhost.roles.plan import GenerationPlan
from ajhost.roles.shared_queue.lane import Lane, lane_of
from ajhost.roles.shared_queue.lender import Lender

_log = logging.getLogger("ajhost.supervisor")
_HELD = 2048
"""Requests that the desk can hold at once: what a dead worker's chunk and socket may give, and the last resort."""
COVER_PATIENCE = 1.0
"""Seconds to wait for our own subscription where somebody else waits for us."""


class Desk:
    """`stored(epoch, sock)` is told of each new connection, for systemd's file descriptor store."""

    def __init__(
        self,
        plan: GenerationPlan,
        serial: int,
        lanes: Sequence[Lane],
        max_payload: int,
        stored: Callable[[int, socket.socket], None],
    ) -> None:
        self.directory = plan.runtime / "ledger"
        self.serial = serial
        ledger_file.make(
            self.directory,
            geometry_for(_HELD, max_payload),
            Identity(serial, SUPERVISOR_SLOT, plan.generation),
        )
        self.ledger = ledger_file.OwnedLedger(self.directory, serial)
        self.ledger.words[Word.PID] = os.getpid()
        self._stored = stored
        loop = asyncio.get_running_loop()
        requesters = Requesters(self.ledger)
        self._inherit(requesters)
        self.transport = LedgerTransport(self.ledger, requesters, self)
        self.connection = Connection(plan.nats, self.transport, "ajhost supervisor")
        self.lender = Lender(self.ledger, lanes, loop, self._expired)
        self.covered = 0
        """How often we subscribed as the last resort."""
        self._subscribing: asyncio.Task[None] | None = None
        """While we cover; it ends when the server knows."""
        self._cover_lock = asyncio.Lock()
        self._draining = ""
        self._holding = False
        self.follow(plan, lanes)

    def _inherit(self, requesters: Requesters) -> None:
        """What earlier starts knew of requesters, to whose tasks this one gives the answers that are left."""
        for serial in ledger_file.serials(self.directory):
            if serial < self.serial:
                with contextlib.suppress(OSError, LedgerError):
                    ledger = ledger_file.MappedLedger(self.directory, serial)
                    if ledger.slot == SUPERVISOR_SLOT:
                        requesters.inherit(ledger)
                    ledger.close()

    def follow(self, plan: GenerationPlan, lanes: Sequence[Lane]) -> None:
        """Takes a generation's handlers, limits and lanes."""
        self.lender.learn(lanes)
        self._judge = Judge(plan.handlers, plan.workers.default_timeout, plan.signature).judge
        self._lanes = [lane_of(h) for h in plan.handlers]
        self._subjects = [s for h in plan.handlers for s in subjects_of(h.route)]
        self._group = plan.nats.queue_group
        self._backlog = max(plan.workers.backlog * plan.workers.count, _HELD // 2)

    async def connect(self) -> None:
        """Connects, however long it takes."""
        await self.connection.connect()

    async def server_lives(self) -> bool:
        """Whether the server that we are connected to is there still, and has passed on all that it has read by now."""
        return await self.connection.answers(COVER_PATIENCE)

    @property
    def max_payload(self) -> int:
        """The server's limit in bytes, as it was last known."""
        return self.connection.max_payload

    # -- answers --------------------------------------------------------------------------------

    def answer(self, reply: bytes, outcome: Outcome) -> None:
        """Answers for somebody else; the reply survives a reconnect.

        Call it before the request is said: once this returns the answer is in our ledger, so that the next start gives
        one if we die before the kernel has it. Only a ledger without a free entry leaves it to our memory.
        """
        if not reply:
            return
        data = encode_reply(reply, outcome, self.max_payload)
        if not self.ledger.available:
            self.transport.out.publish(data)
            return
        index = self.ledger.start_pulled(time.monotonic_ns())
        self.ledger.refuse(index, reply)
        self.transport.out.reply(index, data)

    def _refuse(self, index: int, reply: bytes, outcome: Failed) -> None:
        if self.ledger.refuse(index, reply):
            self.transport.out.reply(index, encode_reply(reply, outcome, self.max_payload))
        else:
            self.ledger.release(index)  # a puller started it in the last moment

    # -- requests that somebody else must run ---------------------------------------------------

    def copy(self, frame: bytes) -> int | None:
        """Copies a raw frame to our ledger, RECEIVED; None when it was answered instead. `lend` makes it available.

        Of a frame that no ledger holds, whatever is there with its first line will do: it is refused.
        """
        line = message_line(frame)
        if line is None or not line[1]:
            return None
        _, reply, size = line
        if size > len(frame) or len(reply) > MAX_REPLY:
            self.answer(reply, Failed(f"bad request: {size} bytes are more than this host can hold"))
            return None
        index = self.ledger.receive_copy(frame, time.monotonic_ns())
        if index is None:
            self.answer(reply, Failed("overloaded: too many requests to take over at once"))
        return index

    def lend(self, index: int) -> None:
        """Lends a request that was copied."""
        frame = self.ledger.frame(index)
        self._settle(index, frame, scan(frame).messages[0], None)

    def _settle(self, index: int, data: bytes, message: Message, copy: bytes | None) -> None:
        _, header, body, end, subject, reply = message
        judged = self._judge(subject, data[header:body], data[body : end - 2])
        if isinstance(judged, Failed):
            self._refuse(index, reply, judged)
        elif self._draining:
            self._refuse(index, reply, Failed(self._draining))
        elif not self._keep(index, copy, judged[1], int(judged[2] * 1e9)):
            self._refuse(index, reply, Failed("overloaded: no room for a request of this size"))

    def _keep(self, index: int, copy: bytes | None, handler: int, deadline_ns: int) -> bool:
        if self._holding:
            return self.lender.hold(index, copy, deadline_ns)
        return self.lender.lend(index, copy, self._lanes[handler], deadline_ns)

    def hold(self) -> None:
        """From now on, what comes waits for the next start: nobody here is to run it."""
        self._holding = True

    # -- adapters.transport.Sink ----------------------------------------------------------------

    async def opened(self, sock: socket.socket) -> None:
        """A new connection of ours."""
        self._stored(self.ledger.words[Word.EPOCH], sock)

    def admit(self, index: int, data: bytes, message: Message) -> None:
        """A request that came to the last resort."""
        begin, _, _, end, _, reply = message
        if len(reply) > MAX_REPLY or end > len(data):
            self._refuse(index, reply, Failed("bad request: more than this host can hold"))
        elif self.lender.full(self._backlog):
            self._refuse(index, reply, Failed(f"overloaded: {self._backlog} requests wait already"))
        else:
            self._settle(index, data, message, data[begin:end])

    def vacate(self) -> None:
        """What was admitted has been copied."""

    def refuse(self, reply: bytes) -> None:
        """A request without an entry."""
        self.answer(reply, Failed("overloaded: no room in the ledger"))

    def server_error(self, text: str) -> None:
        """`-ERR` or a broken connection."""
        _log.warning("NATS: %s", text)

    def _expired(self, index: int) -> None:
        text = self._draining or "deadline exceeded: no worker became free in time"
        self._refuse(index, reply_of(self.ledger.frame(index)), Failed(text))

    # -- the last resort ------------------------------------------------------------------------

    @property
    def covering(self) -> bool:
        """Whether we are subscribed."""
        return self._subscribing is not None

    @property
    def turning(self) -> bool:
        """Whether we are about to subscribe or to leave."""
        return self._cover_lock.locked()

    async def cover(self, patience: float | None = COVER_PATIENCE) -> None:
        """Subscribes; when it returns, the server knows, or cannot be reached, and then nobody asks through it.

        Or it has not said so for `patience` seconds, as it stands still perhaps, or others serve again.
        """
        async with self._cover_lock:
            if self._subscribing is None:
                if not self.connection.up.is_set():
                    return
                self.covered += 1
                self._subscribing = asyncio.create_task(
                    self.connection.subscribe(self._subjects, self._group)
                )
            subscribing = self._subscribing
        await asyncio.wait({subscribing}, timeout=patience)

    async def uncover(self) -> None:
        """Leaves the group again; what had come is lent."""
        async with self._cover_lock:
            if self._subscribing is not None:
                self._subscribing.cancel()
                await self.connection.leave()
                self._subscribing = None

    # -- life -----------------------------------------------------------------------------------

    def beat(self, now_ns: int) -> None:
        """The desk's share of a tick."""
        self.ledger.words[Word.BEAT] = now_ns
        self.lender.sweep(now_ns)
        self.transport.out.confirm()
        self.transport.resume()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to be done at the next beat."""
        out = self.transport.out
        return not (self.covering or self.turning or self.lender.count or out.unconfirmed or out.repeating)

    def give_up(self, text: str) -> None:
        """The host stops: what nobody has started is answered with `text`, now and from now on."""
        self._draining = text
        self.lender.give_up()

    async def settle(self, patience: float) -> None:
        """Waits until the server and its requesters have our answers, at most `patience` seconds."""
        end, out = time.monotonic() + patience, self.transport.out
        while (out.unsent or out.unconfirmed or out.repeating) and time.monotonic() < end:
            out.confirm()
            await asyncio.sleep(0.01)

    async def close(self, patience: float) -> bool:
        """Settles, closes, and removes our ledger if it is empty.

        False when answers are left: the ledger stays for the next start.
        """
        await self.settle(patience)
        self.transport.out.let_go()
        clean = not self.transport.out.unsent and not self.ledger.in_use()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self.connection.close()
        if clean:
            ledger_file.remove(self.directory, self.serial)
        return clean
