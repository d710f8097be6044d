"""The state machine of a NATS connection, sans-IO. Decides when a server is tried, how long each step of an attempt may
take, that a server is dead after `nats.ping_timeout` of silence, and that a name's addresses of before are used while
it cannot be resolved. `server_pool.py` chooses the server.

Every process of a host runs one such machine, and so does each command that needs NATS. `handle` takes an event and
returns commands. The driver, `adapters/nats/connection.py`, executes them and decides nothing. All states and steps are
in `core/connection_table.py`. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from ajhost.core.backoff import BACKOFF
from ajhost.core.connection_table import (
    CONNECTED,
    LOCKS_OUT,
    PAUSING,
    TRYING,
    Barred,
    Close,
    Command,
    ConnectionFailed,
    Drop,
    Due,
    Event,
    Heard,
    Leave,
    LogIn,
    Lost,
    Move,
    Open,
    Ping,
    Quiet,
    Reconfigured,
    Refused,
    Resolve,
    Resolved,
    Scout,
    Scouted,
    Sealed,
    Start,
    Subscribed,
    Ticked,
    Told,
    Unresolved,
    next_state,
)
from ajhost.core.lame_duck import LameDuck
from ajhost.core.login_gate import LoginGate
from ajhost.core.server_pool import Address, Server, ServerPool, literal
from ajhost.core.timings import (
    ATTEMPT_LIMIT,
    CONNECT_LIMIT,
    CONNECTION_PROVEN,
    CONNECTION_TICK,
    CONNECTION_TICK_LONGEST,
    DISCOVERED_CONNECT_LIMIT,
    LOGIN_LIMIT,
    LOGIN_SPREAD,
    PING_UNANSWERED,
    RESOLVE_LIMIT,
)
from ajhost.ledger.connection_status import ConnectionState, Reason

LIMITS = {
    ConnectionState.RESOLVING: RESOLVE_LIMIT,
    ConnectionState.CONNECTING: CONNECT_LIMIT,
    ConnectionState.SEALED: LOGIN_LIMIT,
}
"""Seconds that each step of an attempt may take."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`[nats] ping_interval` and `ping_timeout`, in seconds without a byte."""

    ping_interval: float = 2.0
    ping_timeout: float = 5.0


class ConnectionMachine:
    """A connection: its `state` `since` a time, its present or next `server`, and why it is not subscribed (`reason`,
    `text`).
    """

    def __init__(self, pool: ServerPool, gate: LoginGate, patience: Patience, rng: Random) -> None:
        self._pool, self._gate, self._rng = pool, gate, rng
        self.patience = patience
        self.state = ConnectionState.CLOSED
        self.since = 0.0
        self.server, _ = pool.next(0.0)
        self.reason, self.text = Reason.NONE, ""
        self.failed_attempts = self.subscribed_times = 0
        """Failures since the last success, and successes."""
        self.reconnects_by = [0] * len(Reason)
        """Connections after the first, by the reason for which the one before had ended."""
        self._ended_for = Reason.NONE
        self._leaving = False
        self._ticked_at = 0.0
        self._in_step = self._in_attempt = 0.0
        """Seconds that the present step of an attempt has taken so far, and the whole attempt."""
        self._quiet, self._progress, self._pinged = 0.0, -1, False
        """Seconds without a byte from the server, the progress at the last tick, and whether a PING was sent since."""
        self._retry_at = self._let_in_at = 0.0
        """When the next attempt is due, and when a server last accepted this process's log-in."""
        self._target: Server | None = None
        """The server of the next attempt, before any other of the pool: it accepted a second log-in (`Scouted`)."""
        self._moving = self._barred = False
        """Whether the connection is being left (`Move`), and lacks some subscriptions (`Barred`)."""
        self._lame_duck = LameDuck(pool)

    @property
    def connected(self) -> bool:
        """Whether a server has accepted the log-in, and the connection lasts."""
        return self.state in CONNECTED or self._barred

    @property
    def reconnects(self) -> int:
        """Returns how many connections were made after the first one."""
        return max(self.subscribed_times - 1, 0)

    def wakes_in(self, now: float) -> float:
        """Returns in how many seconds the driver is to send the next `Ticked`."""
        if self.state is ConnectionState.WAITING:
            return min(max(self._retry_at - now, 0.001), CONNECTION_TICK)
        return CONNECTION_TICK

    def handle(self, event: Event, now: float) -> list[Command]:
        """Takes an event. Returns the commands for the driver, in their order.

        :raises IllegalTransition: for an event that the table does not have in this state.
        """
        match event:
            case Ticked():
                return self._tick(event, now)
            case Start():
                self._step(Start, now)
                self._ticked_at = now
                return self._due(now)
            case Resolved(addresses):
                return self._open(self._pool.resolved(self.server, addresses), now)
            case Unresolved(text):
                return self._unresolved(text, now)
            case Sealed(address):
                self._step(Sealed, now)
                self._pool.reached(self.server, address)
                return [LogIn(self.server)]
            case Subscribed():
                return self._subscribed(now)
            case ConnectionFailed(reason, text):
                return self._fail(reason, text, now)
            case Told():
                return self._told(event, now)
            case Scouted(server, welcome):
                return self._scouted(server, welcome)
            case Barred(text):
                return self._bar(text, now)
            case Leave():
                self._leaving = True
                if self.state is ConnectionState.SUBSCRIBED or self._barred:
                    self._step(Leave, now)
                    self._barred = False
                return []
            case Reconfigured(servers, move):
                return self._reconfigured(servers, move, now)
            case Close():
                held = self.connected or self.state in TRYING
                self._step(Close, now)
                self._barred = False
                return [Drop()] if held else []

    def begin_anew(self, now: float) -> list[Command]:
        """Drops the connection and waits for the next attempt, whatever the state is: after an illegal transition."""
        self.state, self.since = ConnectionState.WAITING, now
        self.reason, self.text = Reason.CLIENT, "a step that cannot be"
        self._barred = self._moving = False
        self._lame_duck.forget()
        self._target = None
        self._retry_at = now + BACKOFF[Reason.CLIENT].most
        return [Drop()]

    def _step(self, event: type, now: float) -> None:
        self.state, self.since = next_state(self.state, event), now
        self._in_step = 0.0

    # -- an attempt -----------------------------------------------------------------------------

    def _attempt(self, now: float) -> list[Command]:
        """Begins an attempt. The state is RESOLVING."""
        if self._target is None:
            self.server, _ = self._pool.next(now)
        else:
            self.server, self._target = self._target, None
        self._in_attempt = 0.0
        self._moving = False
        self._lame_duck.forget()
        self._pool.tried(self.server, now)
        address = literal(self.server.host, self.server.port)
        if address is not None:
            return self._open((address,), now)
        return [Resolve(self.server)]

    def _open(self, addresses: tuple[Address, ...], now: float) -> list[Command]:
        self._step(Resolved, now)
        return [Open(self.server, addresses)]

    def _unresolved(self, text: str, now: float) -> list[Command]:
        remembered = self._pool.remembered(self.server)
        if remembered:
            return self._open(remembered, now)
        return self._fail(Reason.DNS, text, now)

    def _subscribed(self, now: float) -> list[Command]:
        self._step(Subscribed, now)
        self._gate.opened(now)
        self.reason, self.text = Reason.NONE, ""
        self.failed_attempts = 0
        self.subscribed_times += 1
        if self.subscribed_times > 1:
            self.reconnects_by[self._ended_for] += 1
        self._let_in_at = now
        self._quiet, self._pinged = 0.0, False
        if self._leaving:
            self._step(Leave, now)
        return []

    def _bar(self, text: str, now: float) -> list[Command]:
        """Keeps the connection for the subscriptions that the server accepted.

        A new log-in is tried after the pause, since a server reads the permissions at the log-in.
        """
        self._step(Barred, now)
        self._gate.refused(now)
        self.reason, self.text = Reason.PERMISSION, text
        self.failed_attempts += 1
        self._barred = True
        self._quiet, self._pinged = 0.0, False
        self._retry_at = now + self._pause(Reason.PERMISSION)
        return []

    def _pause(self, reason: Reason) -> float:
        return BACKOFF[reason].pause(self._pool.failures(self.server), self._rng.random())

    def _fail(self, reason: Reason, text: str, now: float) -> list[Command]:
        if self.connected:
            self._ended_for = reason
            self._pool.lost(now)
            if not self._barred and now - self._let_in_at > CONNECTION_PROVEN:
                self._pool.proven(self.server)
        planned = self._moving and (self._target is not None or reason in (Reason.RECONFIGURED, Reason.PERMISSION))
        if planned or reason is Reason.RECONFIGURED:
            self._step(Lost, now)
            self._retry_at = now
        else:
            locks_out = reason in LOCKS_OUT
            self._step(Refused if locks_out else Lost, now)
            if locks_out:
                self._gate.refused(now)
            self.failed_attempts += 1
            self._pool.failed(self.server, self._pause(reason), now)
            self._target = None
            _, self._retry_at = self._pool.next(now)
        if not planned or reason is not Reason.PERMISSION:  # `_bar` has set a text with the subject
            self.reason, self.text = reason, text
        self._barred = self._moving = False
        return [Drop()]

    # -- time -----------------------------------------------------------------------------------

    def _tick(self, event: Ticked, now: float) -> list[Command]:
        passed = min(max(now - self._ticked_at, 0.0), CONNECTION_TICK_LONGEST)
        self._ticked_at = now
        if self.state in TRYING:
            return self._hurry(passed, now)
        if self.connected:
            return self._listen(event, passed, now)
        if self.state in PAUSING:
            return self._due(now)
        return []

    def _hurry(self, passed: float, now: float) -> list[Command]:
        self._in_step += passed
        self._in_attempt += passed
        limit = LIMITS[self.state]
        if self.state is ConnectionState.CONNECTING and self.server.discovered:
            limit = DISCOVERED_CONNECT_LIMIT
        if self._in_step < limit and self._in_attempt < ATTEMPT_LIMIT:
            return []
        if self.state is ConnectionState.RESOLVING:
            return self._unresolved(f"{self.server.host}: no answer of the resolver", now)
        if self.state is ConnectionState.SEALED:
            return self._fail(Reason.SILENT, f"{self.server}: no answer to the log-in", now)
        return self._fail(Reason.UNREACHABLE, f"{self.server}: no connection to a NATS server in time", now)

    def _due(self, now: float) -> list[Command]:
        self._heed_opening(now)
        if now < self._retry_at or not self._gate.may_try(now):
            return []
        self._step(Due, now)
        return self._attempt(now)

    def _heed_opening(self, now: float) -> None:
        """Ends the pause of a locked out process if another process of the host has logged in meanwhile."""
        if self.state is ConnectionState.LOCKED_OUT and self._gate.was_opened(now):
            self._pool.forget_pauses()
            self._retry_at = min(self._retry_at, now + LOGIN_SPREAD * self._rng.random())

    def _listen(self, event: Ticked, passed: float, now: float) -> list[Command]:
        if event.progress != self._progress or not event.reading:
            self._progress = event.progress
            self._quiet, self._pinged = 0.0, False
            if self.state is ConnectionState.SILENT:
                self._step(Heard, now)
                if self._leaving:
                    self._step(Leave, now)
            return self._look_elsewhere(now)
        self._quiet += passed
        if self._quiet >= self.patience.ping_timeout:
            silent = f"{self.server}: not a byte for {self._quiet:.1f} s"
            return self._fail(Reason.SILENT, silent, now)
        if not self._pinged and self._quiet >= self.patience.ping_interval:
            self._pinged = True
            return [Ping()]
        unanswered = self._pinged and self._quiet >= self.patience.ping_interval + PING_UNANSWERED
        if unanswered and self.state in (ConnectionState.SUBSCRIBED, ConnectionState.LEAVING):
            self._step(Quiet, now)
        return self._look_elsewhere(now)

    # -- other servers (core/lame_duck.py: while the present one is about to stop) -------------------

    def _told(self, event: Told, now: float) -> list[Command]:
        if event.connect_urls is not None:
            self._pool.discover(event.connect_urls, self.server, now)
        if event.lame_duck:
            self._lame_duck.announced()
        return []

    def _look_elsewhere(self, now: float) -> list[Command]:
        """Leaves a barred connection when its next log-in is due. Tries another server if this one is about to stop."""
        if self._moving:
            return []
        self._heed_opening(now)
        if self._barred and now >= self._retry_at and self._gate.may_try(now):
            self._moving = True
            return [Move(Reason.PERMISSION)]
        if not self._lame_duck.is_due(now) or not self._gate.may_move(now):
            return []
        other = self._lame_duck.next_to_scout(self.server, now)
        return [] if other is None else [Scout(other)]

    def _scouted(self, server: Server, welcome: bool) -> list[Command]:
        if not self.connected or not self._lame_duck.scouted(welcome, self._ticked_at):
            return []
        self._target, self._moving = server, True
        return [Move(Reason.LAME_DUCK)]

    def _reconfigured(self, servers: tuple[Server, ...], move: bool, now: float) -> list[Command]:
        self._pool.replace(servers)
        self._target = None
        if self.connected:
            if self._moving or self._leaving or not (move or self._barred):
                return []  # the next connection takes a server of the new list anyway
            self._moving = True
            return [Move(Reason.RECONFIGURED)]
        if self.state in PAUSING:
            self._retry_at = now
        elif self.state in TRYING:
            return self._fail(Reason.RECONFIGURED, "", now)
        return []
