"""Logs the losses and returns of a connection (`waiting for NATS at`), and what its server refuses, without repeating
itself however often they come: one record in 30 s for each reason (`adapters/logs/host_failures_log.py`).
"""

from __future__ import annotations

import logging

from ajhost.adapters.logs.host_failures_log import HostFailuresLog
from ajhost.core.timings import CONNECTION_PROVEN
from ajhost.ledger.connection_status import ConnectionStatus, Reason

_log = logging.getLogger("ajhost.nats")


class ConnectionLog:
    """The log of one connection. `quiet`: the caller reports failures itself, so losses are logged at DEBUG only."""

    def __init__(self, *, quiet: bool) -> None:
        self._lost, self._connected = (logging.DEBUG,) * 2 if quiet else (logging.WARNING, logging.INFO)
        self._repeated = HostFailuresLog(_log)
        self._was_lost = self._is_new = self._is_told = False

    def error(self, text: str) -> None:
        """Logs an `-ERR` of the server that no other method is for."""
        self._repeated.tell(logging.WARNING, text, "NATS: %s", text)

    def reply_refused(self, text: str, grant: str) -> None:
        """Logs that the user may not publish replies; `grant` names the permission that it lacks."""
        self._repeated.tell(logging.ERROR, grant, "NATS refuses replies: %s; %s", text, grant)

    def subscription_refused(self, text: str, grant: str) -> None:
        """Logs that the user may not subscribe to a subject of the queue group."""
        self._repeated.tell(logging.ERROR, text, "NATS refuses a subscription: %s; %s", text, grant)

    def service_refused(self, subject: str) -> None:
        """Logs that the user may not subscribe to a subject of the NATS service API."""
        said = "NATS refuses %s: `nats micro` does not show this host; [nats] service = false asks no more"
        self._repeated.tell(logging.INFO, "service", said, subject)

    def on_waiting(self, status: ConnectionStatus, servers: str) -> None:
        """Logs why there is no connection, at the beginning of a pause before the next attempt at `servers`."""
        if status.reason in (Reason.NONE, Reason.RECONFIGURED):
            return
        self._was_lost, self._is_new = True, False
        why = status.text.removeprefix(f"{servers}: ")
        self._repeated.tell(self._lost, why, "waiting for NATS at %s: %s", servers, why)

    def on_connected(self, status: ConnectionStatus) -> None:
        """Logs a log-in that ends a loss."""
        if self._was_lost:
            self._was_lost, self._is_new = False, True
            self._is_told = self._tell_connected(status)

    def on_lasting(self, status: ConnectionStatus, seconds: float) -> None:
        """Has the next failure logged as a new one once the connection has lasted; not if it ends again at once."""
        if self._is_new and seconds > CONNECTION_PROVEN:
            self._is_new = False
            self._repeated.clear()
            if not self._is_told:
                self._tell_connected(status)

    def _tell_connected(self, status: ConnectionStatus) -> bool:
        said = "connected again to NATS at %s" if status.reconnects else "connected to NATS at %s"
        return self._repeated.tell(self._connected, "connected", said, status.server)
