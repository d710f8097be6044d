"""Keeps the NATS servers and credentials that the host uses, and passes a reload's on to processes that run already:
once it has succeeded, or, while one has no connection, once a server accepts them, even if the reload fails.

A new generation has them from its spec. Workers of an older one, which may hold requests whose replies cannot leave,
get them by a message, and the supervisor's own connection by a call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ajhost.adapters.nats.connect_and_log_in import scout
from ajhost.adapters.nats.connection import Connection
from ajhost.adapters.nats.credentials import servers_of
from ajhost.roles.messages import AccessOrder
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.sections import NatsSettings

_log = logging.getLogger("ajhost.supervisor")


class NatsAccess:
    """The access. `present`: the settings in use, which may be newer than those of the generation that serves."""

    def __init__(self, present: NatsSettings, workers: Callable[[], Iterable[WorkerProcess]]) -> None:
        self.present, self._workers = present, workers
        self.own: Connection | None = None
        """The supervisor's connection, once there is one."""
        self._generation = 0
        """Workers up to this generation have older settings in their spec."""

    async def offer(self, settings: NatsSettings, generation: int) -> None:
        """Has every process use these settings if one has no connection and a server accepts them, since the reload of
        `generation` may yet fail for another reason. A process with a connection uses them when that is lost.
        """
        if settings == self.present or not self._lost():
            return
        for server in servers_of(settings):
            if (await scout(settings, server, "ajhost reload")).welcome and self._lost():
                self._generation = generation
                _log.warning("NATS at %s lets us in with the changed settings: they are used from now on", server)
                self.use(settings, move=False)
                break

    def tell(self, worker: WorkerProcess) -> None:
        """Sends a new worker of an older generation the present settings."""
        if worker.generation <= self._generation:
            worker.send(AccessOrder(self.present, move=False))

    def _lost(self) -> bool:
        connections = [worker.ledger.connection() for worker in self._workers()]
        return (self.own is not None and not self.own.connected) or not all(c.subscribed for c in connections)

    def use(self, settings: NatsSettings, *, move: bool) -> None:
        """Has every process use these settings. `move`: those that are connected connect anew, a reload succeeded."""
        self.present = settings
        for worker in self._workers():
            worker.send(AccessOrder(settings, move))
        if self.own is not None:
            self.own.reconfigure(settings, move=move)
