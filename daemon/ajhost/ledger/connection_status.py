"""The states of a process's NATS connection and the reasons why it has none, as the process writes them into its
ledger, and as others read them. `core/connection_table.py` decides which state follows which.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ajhost.ledger.layout import CONNECTION_TEXT, REASON_TEXT_AT, SERVER_TEXT_AT, Word


class ConnectionState(IntEnum):
    """The state of a connection. The numbers are in ledgers and never change their meaning."""

    CLOSED = 0
    """The connection has not begun, or has ended for good."""
    RESOLVING = 1
    """The addresses of the next server are looked up."""
    CONNECTING = 2
    """A socket is opened; the server's INFO is awaited, then the TLS handshake if there is one."""
    SEALED = 3
    """The transport is as secure as the settings require; credentials and subscriptions are under way."""
    SUBSCRIBED = 4
    """The server has all subscriptions."""
    SILENT = 5
    """The server sends nothing, not even the PONG for a PING."""
    LOCKED_OUT = 6
    """A server refuses the log-in or a subscription, for a reason that lasts until an operator acts."""
    WAITING = 7
    """The process has no server, and pauses before it tries the next one."""
    LEAVING = 8
    """The process has left the queue group for good; its answers still leave."""


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

    `reason` and `text` describe the last failure until the next success. `refused_replies` counts the replies that the
    server refused for lack of a permission.
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
    """Since when the server does not have all subscriptions, over all such states; 0 while it has them."""
    reconnects_by: tuple[int, ...] = ()
    """`reconnects` by the number of the `Reason` for which the previous connection had ended."""

    @property
    def subscribed(self) -> bool:
        """Whether the server has all subscriptions, as far as the process knows."""
        return self.state in (ConnectionState.SUBSCRIBED, ConnectionState.SILENT)


def write_connection(words: memoryview, view: memoryview, status: ConnectionStatus) -> None:
    """Stores the status, the state last, so that a reader which sees a state also sees its texts."""
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
    """Reads the status that the owner stored. A stray write counts as CLOSED, or as no reason."""
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
