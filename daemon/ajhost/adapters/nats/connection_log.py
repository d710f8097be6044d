"""What the log says of a connection that is lost and made anew, however often that happens."""

from __future__ import annotations

import logging

from ajhost.adapters.repeated_failures_log import ThrottledLog
from ajhost.core.timings import CONNECTION_PROVEN
from ajhost.ledger.connection_status import ConnectionStatus, Reason

_log = logging.getLogger("ajhost.nats")


class ConnectionLog:
    """The log of one connection. `quiet`: whoever connects tells of failures itself."""

    def __init__(self, *, quiet: bool) -> None:
        self._lost, self._connected = (logging.DEBUG,) * 2 if quiet else (logging.WARNING, logging.INFO)
        self._throttled = ThrottledLog(_log)
        self._was_lost = self._is_new = self._is_told = False

    def tell(self, level: int, kind: str, text: str, *arguments: object) -> None:
        """Tells of what a server says; once in a while for each kind."""
        self._throttled.tell(level, kind, text, *arguments)

    def waits(self, status: ConnectionStatus, servers: str) -> None:
        """There is no connection, and a pause before the next attempt at one of `servers`."""
        if status.reason in (Reason.NONE, Reason.RECONFIGURED):
            return
        self._was_lost, self._is_new = True, False
        why = status.text.removeprefix(f"{servers}: ")
        self._throttled.tell(self._lost, why, "waiting for NATS at %s: %s", servers, why)

    def stands(self, status: ConnectionStatus) -> None:
        """The server has let us in."""
        if self._was_lost:
            self._was_lost, self._is_new = False, True
            self._is_told = self._tell_connected(status)

    def lasts(self, status: ConnectionStatus, seconds: float) -> None:
        """It has stood for so long. What comes after one that lasts is news; not after one that ends again at once."""
        if self._is_new and seconds > CONNECTION_PROVEN:
            self._is_new = False
            self._throttled.clear()
            if not self._is_told:
                self._tell_connected(status)

    def _tell_connected(self, status: ConnectionStatus) -> bool:
        said = "connected again to NATS at %s" if status.reconnects else "connected to NATS at %s"
        return self._throttled.tell(self._connected, "connected", said, status.server)
