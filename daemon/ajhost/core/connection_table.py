"""The transitions of a NATS connection as data: states, events, commands; the reasons for which it ends, in words, and
which of them last until an operator acts (LOCKED_OUT). `server_errors.py` finds the reason in an `-ERR`.

`core/connection_machine.py` takes no step that is not in `TRANSITIONS`. docs/connection.md shows the same table, and a
test compares the two. `core/backoff.py` has the pauses between attempts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ajhost.core.server_pool import Address, Server
from ajhost.ledger.connection_status import ConnectionState, Reason

REASON_TEXTS: dict[Reason, str] = {
    Reason.NONE: "",
    Reason.REFUSED: "connection refused",
    Reason.ENDED: "the server ended the connection",
    Reason.UNREACHABLE: "no connection in time",
    Reason.DNS: "the name cannot be resolved",
    Reason.TLS: "no TLS that is trusted",
    Reason.AUTHORIZATION: "the server refuses our credentials",
    Reason.PERMISSION: "a permission to subscribe is missing",
    Reason.LIMIT: "a limit of the server or the account",
    Reason.PROTOCOL: "no NATS server speaks there",
    Reason.SILENT: "the server is silent",
    Reason.LAME_DUCK: "the server is about to stop",
    Reason.CREDENTIALS: "our credentials cannot be read",
    Reason.RESOURCES: "this process has no resources left",
    Reason.SOCKET: "somebody in this process closed the socket",
    Reason.RECONFIGURED: "other servers or credentials",
    Reason.CLIENT: "the client ended by itself",
}
LOCKS_OUT = frozenset((Reason.TLS, Reason.AUTHORIZATION, Reason.PERMISSION, Reason.LIMIT, Reason.CREDENTIALS))
"""The reasons that last until an operator acts: the connection is LOCKED_OUT. For all others it is WAITING."""


@dataclass(frozen=True)
class _Bare:
    pass


@dataclass(frozen=True)
class _OfServer:
    server: Server


@dataclass(frozen=True)
class _Text:
    text: str


# -- events ---------------------------------------------------------------------------------------


class Start(_Bare):
    """The process wants a connection."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The server's addresses."""

    addresses: tuple[Address, ...]


class Unresolved(_Text):
    """The server's name has no addresses, or the look-up failed."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A server sent its INFO on this address, and the transport is as secure as the settings require."""

    address: Address


class Subscribed(_Bare):
    """The server accepted the log-in and all subscriptions."""


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The attempt or the connection is over."""

    reason: Reason
    text: str


class Lost(ConnectionFailed):
    """The connection is over for a reason that may pass without an operator."""


class Refused(ConnectionFailed):
    """The connection is over for a reason of `LOCKS_OUT`."""


class Barred(_Text):
    """The server accepted the log-in but refuses some subscriptions. The connection serves the other ones."""


class Quiet(_Bare):
    """A PING was not answered."""


class Heard(_Bare):
    """Bytes came from a server that was SILENT."""


class Due(_Bare):
    """The pause is over, and the log-in gate lets this process try."""


class Leave(_Bare):
    """This process leaves the queue group and does not subscribe again."""


class Close(_Bare):
    """This process needs no connection any more."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed. `progress` grows with what the server sends; `reading`: whether this process reads its bytes."""

    progress: int
    reading: bool


@dataclass(frozen=True, slots=True)
class Told:
    """INFO: the servers that this one knows of, and whether it is about to stop."""

    connect_urls: tuple[str, ...] | None
    lame_duck: bool


@dataclass(frozen=True, slots=True)
class Scouted:
    """The result of `Scout`: whether the server accepted a second connection's log-in."""

    server: Server
    welcome: bool


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A reload brought other servers or credentials. `move`: a connection that serves must be made anew, too."""

    servers: tuple[Server, ...]
    move: bool = True


Event = (
    Start | Resolved | Unresolved | Sealed | Subscribed | ConnectionFailed | Barred | Leave | Close | Ticked | Told
    | Scouted | Reconfigured
)  # fmt: skip


# -- commands -------------------------------------------------------------------------------------


class Resolve(_OfServer):
    """Look up the addresses of a server's name. Ends with `Resolved` or `Unresolved`."""


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to the first address that answers, with TLS if required. Ends with `Sealed`, `Lost` or `Refused`."""

    server: Server
    addresses: tuple[Address, ...]


class LogIn(_OfServer):
    """Send credentials and subscriptions. Ends with `Subscribed`, `Barred`, `Lost` or `Refused`."""


class Ping(_Bare):
    """Send the server a PING."""


class Scout(_OfServer):
    """Log in at another server with a second connection. Ends with `Scouted`."""


@dataclass(frozen=True, slots=True)
class Move:
    """Leave the queue group in order, then report `Lost` with the reason. A new connection follows."""

    reason: Reason


class Drop(_Bare):
    """Close the socket and drop the client, with any step of theirs that is under way."""


Command = Resolve | Open | LogIn | Ping | Scout | Move | Drop


# -- the table ------------------------------------------------------------------------------------

_S = ConnectionState
TRYING = (_S.RESOLVING, _S.CONNECTING, _S.SEALED)
"""The steps of an attempt."""
CONNECTED = (_S.SUBSCRIBED, _S.SILENT, _S.LEAVING)
PAUSING = (_S.WAITING, _S.LOCKED_OUT)

TRANSITIONS: dict[tuple[ConnectionState, type], ConnectionState] = {
    (_S.CLOSED, Start): _S.WAITING,
    (_S.RESOLVING, Resolved): _S.CONNECTING,
    (_S.CONNECTING, Sealed): _S.SEALED,
    (_S.SEALED, Subscribed): _S.SUBSCRIBED,
    (_S.SEALED, Barred): _S.LOCKED_OUT,
    (_S.SUBSCRIBED, Barred): _S.LOCKED_OUT,
    (_S.SUBSCRIBED, Quiet): _S.SILENT,
    (_S.LEAVING, Quiet): _S.SILENT,
    (_S.SILENT, Heard): _S.SUBSCRIBED,
    (_S.SUBSCRIBED, Leave): _S.LEAVING,
    (_S.LOCKED_OUT, Leave): _S.LEAVING,
    (_S.LOCKED_OUT, Lost): _S.WAITING,
    (_S.LOCKED_OUT, Refused): _S.LOCKED_OUT,
    **{(state, Lost): _S.WAITING for state in (*TRYING, *CONNECTED)},
    **{(state, Refused): _S.LOCKED_OUT for state in (*TRYING, *CONNECTED)},
    **{(state, Due): _S.RESOLVING for state in PAUSING},
    **{(state, Close): _S.CLOSED for state in ConnectionState},
}
"""`(state, event) -> state`. A step that is not here is illegal. Events of `Event` that are in no row change no state.

In LOCKED_OUT a connection exists only after `Barred`; `Leave`, `Lost` and `Refused` come only then.
"""


class IllegalTransition(AssertionError):
    """An event or a command in a state in which the table of that life has no step for it: a programming error."""

    def __init__(self, state: Enum, event: type) -> None:
        super().__init__(f"{event.__name__} in the state {state.name}")


def next_state(state: ConnectionState, event: type) -> ConnectionState:
    """:raises IllegalTransition: when the table has no such step."""
    found = TRANSITIONS.get((state, event))
    if found is None:
        raise IllegalTransition(state, event)
    return found
