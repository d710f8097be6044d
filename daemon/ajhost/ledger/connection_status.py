"""Where a process's NATS connection stands, as it writes it into its ledger and as others read it there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ajhost.ledger.layout import CONNECTION_TEXT, REASON_TEXT_AT, SERVER_TEXT_AT, Word


class ConnectionState(IntEnum):
    """Where a connection stands. The numbers are in ledgers: they never change their meaning."""

    CLOSED = 0
    """Not begun, or ended for good."""
    RESOLVING = 1
    """The addresses of the next server are looked up."""
    CONNECTING = 2
    """A socket is opened; the server's INFO is awaited, then the TLS handshake if there is one."""
    SEALED = 3
    """As secure as the settings want it: credentials and subscriptions are under way."""
    SUBSCRIBED = 4
    """The server has all our subscriptions."""
    SILENT = 5
    """Nothing comes from the server, not even the answer to a PING."""
    LOCKED_OUT = 6
    """A server does not let us in, for a reason that only somebody's action ends."""
    WAITING = 7
    """Without a server, until the next one is tried."""
    LEAVING = 8
    """Out of the queue group for good; answers still leave."""


class Reason(IntEnum):
    """Why there is no connection. The numbers are in ledgers: they never change their meaning."""

    NONE = 0
    REFUSED = 1
    ENDED = 2
    UNREACHABLE = 3
    DNS = 4
    TLS = 5
    AUTHORIZATION = 6
    PERMISSION = 7
    LIMIT = 8
    PROTOCOL = 9
    SILENT = 10
    LAME_DUCK = 11
    CREDENTIALS = 12
    RESOURCES = 13
    SOCKET = 14
    RECONFIGURED = 15
    CLIENT = 16


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A connection's state, `since_ns` on the monotonic clock; `server` is HOST:PORT, the present or the next one.

    `reason` and `text` say why it is no better: the last failure until there is a success. `refused_replies` counts
    the replies that the server did not take for lack of a permission.
    """

    state: ConnectionState
    server: str
    since_ns: int
    reason: Reason
    text: str
    reconnects: int
    failed_attempts: int = 0
    refused_replies: int = 0
    unsubscribed_since_ns: int = 0
    """Over all states in which the server has not all subscriptions; 0 while it has."""
    reconnects_by: tuple[int, ...] = ()
    """`reconnects` by the numbers of the reasons for which the connections before had ended."""

    @property
    def subscribed(self) -> bool:
        """Whether the server has all subscriptions of this process, as far as that knows."""
        return self.state in (ConnectionState.SUBSCRIBED, ConnectionState.SILENT)


def write_connection(words: memoryview, view: memoryview, status: ConnectionStatus) -> None:
    """Puts the status down, the state last: whoever sees a state sees the texts that belong to it."""
    _write_text(view, SERVER_TEXT_AT, status.server)
    _write_text(view, REASON_TEXT_AT, status.text)
    words[Word.CONNECTION_REASON] = status.reason
    words[Word.RECONNECTS] = status.reconnects
    for reason, count in enumerate(status.reconnects_by):
        words[Word.RECONNECTS_BY + reason] = count
    words[Word.FAILED_ATTEMPTS] = status.failed_attempts
    words[Word.CONNECTION_SINCE] = max(status.since_ns, 0)
    if status.subscribed:
        words[Word.UNSUBSCRIBED_SINCE] = 0
    elif not words[Word.UNSUBSCRIBED_SINCE]:
        words[Word.UNSUBSCRIBED_SINCE] = max(status.since_ns, 0)
    words[Word.CONNECTION] = status.state


def read_connection(words: memoryview, view: memoryview) -> ConnectionStatus:
    """What the owner wrote; whatever stands there instead is no connection."""
    state, reason = words[Word.CONNECTION], words[Word.CONNECTION_REASON]
    return ConnectionStatus(
        ConnectionState(state) if state in _STATES else ConnectionState.CLOSED,
        _read_text(view, SERVER_TEXT_AT),
        words[Word.CONNECTION_SINCE],
        Reason(reason) if reason in _REASONS else Reason.NONE,
        _read_text(view, REASON_TEXT_AT),
        words[Word.RECONNECTS],
        words[Word.FAILED_ATTEMPTS],
        words[Word.REFUSED_REPLIES],
        words[Word.UNSUBSCRIBED_SINCE],
        tuple(words[Word.RECONNECTS_BY + reason] for reason in Reason),
    )


_STATES, _REASONS = frozenset(ConnectionState), frozenset(Reason)


def _write_text(view: memoryview, at: int, text: str) -> None:
    data = text.encode("utf-8", "replace")[: CONNECTION_TEXT - 1]
    view[at : at + CONNECTION_TEXT] = data.ljust(CONNECTION_TEXT, b"\0")


def _read_text(view: memoryview, at: int) -> str:
    return bytes(view[at : at + CONNECTION_TEXT]).partition(b"\0")[0].decode("utf-8", "replace")
