"""The state of a process's NATS connection in words and as JSON: for `ajhost status`, systemd's line and /readyz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ajhost.core.connection_table import LOCKS_OUT, TRYING
from ajhost.ledger.connection_status import ConnectionState, ConnectionStatus


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """A process's connection to NATS.

    `state` is `connected` when the server has all subscriptions, else a `ConnectionState` in lower case. A process that
    was locked out stays `locked_out` during its next attempt. `server` is the present or the next one. `since_s`: for
    how long the process has been connected, or has not been; `reason`: why it is not. `reconnects` and
    `refused_replies` (for lack of permission) are counted since the process began.
    """

    state: str
    server: str
    since_s: float
    reason: str
    reconnects: int
    refused_replies: int = 0

    @classmethod
    def of(cls, status: ConnectionStatus, now_ns: int) -> Self:
        """Makes the report from the status in a process's ledger. `now_ns` is monotonic."""
        since_ns = status.unsubscribed_since_ns or status.since_ns
        return cls(
            _state(status),
            status.server,
            max(now_ns - since_ns, 0) / 1e9 if since_ns else 0.0,
            "" if status.subscribed else status.text,
            status.reconnects,
            status.refused_replies,
        )

    def __str__(self) -> str:
        """Returns `127.0.0.1:4222 for 3 h, 2 reconnects`, or the state if it is another, with the reason."""
        how_long = duration(self.since_s)
        if self.state == "connected":
            again = f", {self.reconnects} reconnect{'' if self.reconnects == 1 else 's'}" if self.reconnects else ""
            return f"{self.server} for {how_long}{again}"
        reason = f": {self.reason}" if self.reason else ""
        where = f" ({self.server})" if self.server and self.server not in self.reason else ""
        return f"{self.state.replace('_', ' ')} for {how_long}{where}{reason}"


def _state(status: ConnectionStatus) -> str:
    if status.state is ConnectionState.SUBSCRIBED:
        return "connected"
    if status.state in TRYING and status.reason in LOCKS_OUT:
        return ConnectionState.LOCKED_OUT.name.lower()
    return status.state.name.lower()


def duration(seconds: float) -> str:
    """Returns a duration like `12 s`, `3 min 20 s`, `5 h 2 min` or `12 d 3 h`."""
    whole = int(seconds)
    for large, small, name, smaller in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
