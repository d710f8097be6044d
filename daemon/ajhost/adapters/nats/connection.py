"""One NATS connection that is made again whenever it ends, as the machine of `core/connection_machine.py` decides.
Tells by a server's `-ERR` whether it ends the connection, or concerns a reply or a subscription.

This module passes each event to the machine and executes its commands: look-ups, sockets, log-ins and subscriptions,
as one task at a time, which `Drop` cancels. It writes the connection's status into the ledger at each change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable
from random import Random
from typing import Any

from ajhost.adapters.nats.connect_and_log_in import ConnectAttempts, scout
from ajhost.adapters.nats.connection_log import ConnectionLog
from ajhost.adapters.nats.credentials import servers_of
from ajhost.adapters.nats.interfaces import Driver, Sink
from ajhost.adapters.nats.subscriptions import Subscriber
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_machine import ConnectionMachine, Patience
from ajhost.core.connection_table import (
    LOCKS_OUT,
    REASON_TEXTS,
    Barred,
    Close,
    Command,
    ConnectionFailed,
    Drop,
    Event,
    IllegalTransition,
    Leave,
    LogIn,
    Lost,
    Move,
    Open,
    Ping,
    Reconfigured,
    Refused,
    Resolve,
    Scout,
    Scouted,
    Start,
    Subscribed,
    Ticked,
    Told,
)
from ajhost.core.login_gate import LoginGate
from ajhost.core.server_errors import reason_of, violation_of
from ajhost.core.server_pool import ServerPool
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import LAST_WORDS, MOVE_LIMIT, POLL_INTERVAL
from ajhost.ledger.connection_status import ConnectionState, ConnectionStatus, Reason, write_connection
from ajhost.ledger.layout import LARGEST, Word
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.server_info import ServerInfo
from ajhost.settings.sections import NatsSettings

_log = logging.getLogger("ajhost.nats")
_UP = (ConnectionState.SUBSCRIBED, ConnectionState.SILENT, ConnectionState.LEAVING)


def addresses(settings: NatsSettings) -> str:
    """Returns the configured servers as text without user names and passwords."""
    return ", ".join(map(str, servers_of(settings)))


class Connection(Driver):
    """A connection that is made again without end. `up` is set while the server has all our subscriptions."""

    def __init__(
        self,
        settings: NatsSettings,
        ledger: LedgerWriter,
        restart_window: RestartWindow,
        gate: LoginGate,
        sink: Sink,
        name: str,
        *,
        quiet: bool = False,
        always: Iterable[str] = (),
    ) -> None:
        """`quiet`: the caller reports failures itself. `always`: subjects besides those of the queue group."""
        self._settings, self._name = settings, name
        self._loop = asyncio.get_running_loop()
        rng = Random()
        pool = ServerPool(servers_of(settings), rng, discover=settings.discover)
        patience = Patience(settings.ping_interval, settings.ping_timeout)
        self._machine = ConnectionMachine(pool, gate, patience, rng)
        self.transport = LedgerTransport(ledger, restart_window, sink, self)
        self._attempts = ConnectAttempts(settings, name, self.transport)
        self._words = ledger.words
        self._subscriber = Subscriber(self.transport.out, always)
        self._fatal: tuple[Reason, str] | None = None
        self._last_words = "", -LAST_WORDS
        self._end: Lost | None = None
        self._work: asyncio.Task[Event | None] | None = None
        self._scouting: asyncio.Task[Event | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._change = asyncio.Event()
        self._published: ConnectionStatus | None = None
        self._connection_log = ConnectionLog(quiet=quiet)
        self.up = asyncio.Event()

    # -- for the owner --------------------------------------------------------------------------

    @property
    def max_payload(self) -> int:
        """The server's limit of payload and headers together for messages of this user, in bytes."""
        return self._attempts.info.max_payload

    @property
    def largest_request(self) -> int:
        """Bytes of the largest request that the server may hand over."""
        return self._attempts.largest_request

    @property
    def connected(self) -> bool:
        """Whether a server has accepted the log-in."""
        return self._machine.connected

    @property
    def failed_attempts(self) -> int:
        """Attempts that failed since the last success."""
        return self._machine.failed_attempts

    @property
    def why_not(self) -> str:
        """Why there is no connection, in words; empty while there is one, or before the first attempt."""
        machine = self._machine
        return machine.text or REASON_TEXTS[machine.reason]

    async def connect(self, subjects: Iterable[str] = (), group: str = "") -> None:
        """Connects and subscribes, however long it takes. Logs now and then why it waits."""
        self.want(subjects, group)
        if self._machine.state is ConnectionState.CLOSED:
            self._handle(Start())
            self._tick()
        await self.up.wait()

    def want(self, subjects: Iterable[str], group: str) -> None:
        """Sets the subscriptions of the next log-in, or of one that is under way."""
        self._subscriber.want(subjects, group)

    async def subscribe(self, subjects: Iterable[str], group: str) -> None:
        """Joins the queue group on every subject and waits until the server has confirmed it."""
        subscriber = self._subscriber
        subscriber.want(subjects, group)
        wanted = subscriber.wanted
        while subscriber.wanted == wanted and not subscriber.complete:
            if self._machine.state in (ConnectionState.SUBSCRIBED, ConnectionState.SILENT):
                event = await subscriber.subscribe()
                if isinstance(event, Barred) and self._machine.state is ConnectionState.SUBSCRIBED:
                    self._handle(event)
                elif event is None:
                    # the connection has ended; the machine gets the event in a later turn of the loop
                    await asyncio.sleep(POLL_INTERVAL)
            else:
                await self.changed()

    async def unsubscribe(self) -> None:
        """Leaves the queue group on every subject. Returns when all that the server had sent is in the ledger.

        Without a connection it returns at once: the next connection subscribes to nothing.
        """
        self._subscriber.want()
        await self._unsubscribe()

    async def leave(self) -> None:
        """Leaves the queue group for good, otherwise as `unsubscribe`."""
        self._subscriber.want()
        self._handle(Leave())
        await self._unsubscribe()

    async def _unsubscribe(self) -> None:
        if self.transport.connected:
            await self._subscriber.unsubscribe()
        else:
            self._subscriber.reset()

    async def answers(self, patience: float) -> bool:
        """Whether the server answers within `patience` seconds, on the connection that is there now."""
        if not self.transport.connected:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self.transport.out.round_trip()
        return False

    def reconfigure(self, settings: NatsSettings, *, move: bool) -> None:
        """Takes other servers and credentials. `move`: a connection that serves is made anew with them at once."""
        if settings == self._settings:
            return
        self._settings = settings
        self._machine.patience = Patience(settings.ping_interval, settings.ping_timeout)
        self._attempts.reconfigure(settings)
        self._handle(Reconfigured(servers_of(settings), move))

    async def close(self) -> None:
        """Closes the connection once the kernel has taken all that is queued."""
        if self._timer is not None:
            self._timer.cancel()
        if self.connected:
            await self.transport.out.drain()
        self._handle(Close())

    # -- events -----------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        try:
            commands = self._machine.handle(event, self._loop.time())
        except IllegalTransition:
            _log.exception("a step of the connection that cannot be: it is made anew")
            commands = self._machine.begin_anew(self._loop.time())
        for command in commands:
            self._execute(command)
        self._publish_status()

    def _tick(self) -> None:
        try:
            self.transport.repair_socket()
            self._handle(Ticked(self.transport.progress, self.transport.reading))
            self._on_ended(self.transport.epoch)
            if self.connected and self._published is not None:
                self._connection_log.on_lasting(self._published, self._loop.time() - self._machine.since)
        finally:  # after an exception, too, which the loop's exception handler gets
            if self._machine.state is not ConnectionState.CLOSED:
                self._timer = self._loop.call_later(self._machine.wakes_in(self._loop.time()), self._tick)

    def _execute(self, command: Command) -> None:
        match command:
            case Resolve(server):
                self._start_work(self._attempts.resolve(server))
            case Open(server, found):
                self._start_work(self._attempts.open(server, found))
            case LogIn():
                self._start_work(self._log_in())
            case Move(reason):
                self._start_work(self._move(reason))
            case Scout(server):
                self._scouting = self._loop.create_task(scout(self._settings, server, self._name))
                self._scouting.add_done_callback(self._on_scouted)
            case Ping():
                self.transport.out.ping(None)
            case Drop():
                self._drop()

    def _start_work(self, work: Coroutine[Any, Any, Event | None]) -> None:
        self._work = self._loop.create_task(work)
        self._work.add_done_callback(self._on_work_done)

    def _on_work_done(self, task: asyncio.Task[Event | None]) -> None:
        event = _event_of(task)
        if task is self._work:
            self._work = None
            if self._end is not None and isinstance(event, (Subscribed, Barred)):
                # the connection has ended since the answer that this task awaited; the machine has not had that event
                event = self._reason_of_end()
            if event is not None:
                self._handle(event)

    def _on_scouted(self, task: asyncio.Task[Event | None]) -> None:
        event = _event_of(task)
        if task is self._scouting:
            self._scouting = None
            self._handle(event if isinstance(event, Scouted) else Scouted(self._machine.server, False))

    def _drop(self) -> None:
        work, self._work = self._work, None
        scouting, self._scouting = self._scouting, None
        for task in (work, scouting):
            if task is not None:
                task.cancel()
        self.transport.close()
        self._subscriber.reset()
        self._fatal = self._end = None

    # -- the transport's driver (interfaces.py) ---------------------------------------------------

    def connection_ended(self, epoch: int, event: Lost) -> None:
        """`Driver`: the connection is over. An attempt that is under way finds that and its reason by itself."""
        if epoch == self.transport.epoch:
            self._end = event
            self._loop.call_soon(self._on_ended, epoch)

    def _on_ended(self, epoch: int) -> None:
        if epoch == self.transport.epoch and self._machine.connected and self._end is not None:
            self._handle(self._reason_of_end())

    def _reason_of_end(self) -> ConnectionFailed:
        end = self._end or Lost(Reason.ENDED, "the server closed the connection")
        if self._fatal is None:
            text, said_at = self._last_words
            said = end.reason is Reason.ENDED and self._loop.time() - said_at < LAST_WORDS
            return Lost(end.reason, f"{end.text}, saying: {text}") if said else end
        reason, text = self._fatal
        return (Refused if reason in LOCKS_OUT else Lost)(reason, f"{self._machine.server}: {text}")

    def info_received(self, info: ServerInfo) -> None:
        self._attempts.info = info
        self._attempts.largest_request = max(self._attempts.largest_request, info.largest_request)
        self._handle(Told(info.connect_urls, info.lame_duck))

    def error_received(self, text: str) -> None:
        violation, log = violation_of(text), self._connection_log
        if violation is None:
            reason = reason_of(text)
            if reason is not None:
                self._fatal = reason, text
            else:
                self._last_words = text, self._loop.time()
            log.error(text)
        elif violation.operation == "publish":
            self.transport.out.refused(violation.subject.encode(), violation.grant())
            self._words[Word.REFUSED_REPLIES] = self._words[Word.REFUSED_REPLIES] % LARGEST + 1
            log.reply_refused(text, violation.grant())
        elif not self._subscriber.refused(violation):
            log.service_refused(violation.subject)
        else:
            log.subscription_refused(text, violation.grant())
            if self._machine.state is ConnectionState.SUBSCRIBED and self._subscriber.complete:
                self._handle(self._subscriber.barred())

    # -- tasks --------------------------------------------------------------------------------------

    async def _log_in(self) -> Event | None:
        failed = await self._attempts.log_in(self._machine.server)
        if failed is not None:
            return failed
        self._handle(Told(self._attempts.info.connect_urls, self._attempts.info.lame_duck))
        event = await self._subscriber.subscribe()
        # the connection may have ended with the very read that brought the last answer
        return self._reason_of_end() if event is None or self._end is not None else event

    async def _move(self, reason: Reason) -> Event | None:
        """Unsubscribes before the connection is ended, so that all that the server has sent it is in the ledger."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVE_LIMIT):
                await self._unsubscribe()
        self.transport.server.left_on_purpose()
        return Lost(reason, REASON_TEXTS[reason])

    # -- status ---------------------------------------------------------------------------------------

    def _publish_status(self) -> None:
        machine = self._machine
        status = ConnectionStatus(
            machine.state,
            str(machine.server),
            int(machine.since * 1e9),
            machine.reason,
            machine.text,
            machine.reconnects,
            machine.failed_attempts,
            reconnects_by=tuple(machine.reconnects_by),
        )
        if status == self._published:
            return
        before, self._published = self._published, status
        ledger = self.transport.ledger
        write_connection(ledger.words, ledger.view, status)
        if before is None or before.state is not status.state:
            self._on_state_changed(status)
        self._change.set()
        self._change.clear()  # only those who wait now are woken

    def _on_state_changed(self, status: ConnectionStatus) -> None:
        if status.state in _UP:
            self.up.set()
        else:
            self.up.clear()
        if status.state in (ConnectionState.WAITING, ConnectionState.LOCKED_OUT):
            self._connection_log.on_waiting(status, addresses(self._settings))
        elif status.state in (ConnectionState.SUBSCRIBED, ConnectionState.LEAVING):
            self._connection_log.on_connected(status)

    async def changed(self) -> None:
        """Waits for the next change of the connection's status."""
        await self._change.wait()


def _event_of(task: asyncio.Task[Event | None]) -> Event | None:
    if task.cancelled():
        return None
    error = task.exception()
    if error is None:
        return task.result()
    _log.error("an attempt to connect failed in a way that is not foreseen", exc_info=error)
    return Lost(Reason.CLIENT, f"{type(error).__name__}: {error}")
