"""The life of a NATS connection as data: its states, why it ends, what comes next.

`core/connection_machine.py` moves along `TRANSITIONS` and nothing else; docs/connection.md shows the same table, and a
test compares the two. `core/backoff.py` says how long it waits.
"""

from __future__ import annotations

from dataclasses import dataclass

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
"""The reasons that only somebody's action ends: the connection is LOCKED_OUT. For all others it is WAITING."""


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
    """Connect."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The server's addresses."""

    addresses: tuple[Address, ...]


class Unresolved(_Text):
    """There are none, or they cannot be looked up."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A server greeted us on this address, and the transport is as secure as the settings want it."""

    address: Address


class Subscribed(_Bare):
    """The server let us in and has all our subscriptions."""


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The attempt or the connection is over."""

    reason: Reason
    text: str


class Lost(ConnectionFailed):
    """Over for a reason that may go away by itself."""


class Refused(ConnectionFailed):
    """Over for a reason of `LOCKS_OUT`."""


class Barred(_Text):
    """The server let us in but refuses some of our subscriptions. The connection stands: the others are served."""


class Quiet(_Bare):
    """A PING was not answered."""


class Heard(_Bare):
    """Bytes came after all."""


class Due(_Bare):
    """The pause is over, and it is our turn."""


class Leave(_Bare):
    """This process subscribes no more."""


class Close(_Bare):
    """The end of it all."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed. `progress` grows while the server says something; `reading`: whether we would see bytes that
    came."""

    progress: int
    reading: bool


@dataclass(frozen=True, slots=True)
class Told:
    """INFO: the servers that this one knows of, and whether it is about to stop."""

    connect_urls: tuple[str, ...] | None
    lame_duck: bool


@dataclass(frozen=True, slots=True)
class Scouted:
    """Whether a server would let us in, which was asked before the present one is left."""

    server: Server
    welcome: bool


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Other servers, or other credentials. `move`: they matter to a connection that serves, too."""

    servers: tuple[Server, ...]
    move: bool = True


Event = (
    Start | Resolved | Unresolved | Sealed | Subscribed | ConnectionFailed | Barred | Leave | Close | Ticked | Told
    | Scouted | Reconfigured
)  # fmt: skip


# -- commands -------------------------------------------------------------------------------------


class Resolve(_OfServer):
    """Look up the addresses of a server's name: `Resolved` or `Unresolved`."""


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to the first of these addresses that answers, and seal the transport: `Sealed`, `Lost` or `Refused`."""

    server: Server
    addresses: tuple[Address, ...]


class LogIn(_OfServer):
    """Send credentials and subscriptions: `Subscribed`, `Lost` or `Refused`."""


class Ping(_Bare):
    """Ask the server for a sign of life."""


class Scout(_OfServer):
    """See whether another server lets us in, beside the connection that there is: `Scouted`."""


@dataclass(frozen=True, slots=True)
class Move:
    """Leave the queue group in order, then report `Lost` with the reason: the connection is to be made anew."""

    reason: Reason


class Drop(_Bare):
    """Throw away socket and client, and whatever was under way with them."""


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
"""`(state, event) -> state`. What is not here cannot happen; other events of `Event` change no state by themselves.

In LOCKED_OUT there is a connection only after `Barred`; `Leave`, `Lost` and `Refused` come only then."""


class IllegalTransition(AssertionError):
    """An event in a state that it cannot come in: a mistake of ours."""

    def __init__(self, state: ConnectionState, event: type) -> None:
        super().__init__(f"{event.__name__} in the state {state.name}")


def next_state(state: ConnectionState, event: type) -> ConnectionState:
    """:raises IllegalTransition: when the table has no such step."""
    found = TRANSITIONS.get((state, event))
    if found is None:
        raise IllegalTransition(state, event)
    return found
