"""The NATS servers and credentials that the host uses now, and how a reload hands others to processes that run already.

A new generation has them from its spec. Workers of an older one, which may hold requests whose replies cannot leave,
and the supervisor itself are told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ajhost.adapters.nats.connect_attempts import scout
from ajhost.adapters.nats.connection import Connection
from ajhost.adapters.nats.credentials import servers_of
from ajhost.roles.messages import AccessOrder
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.sections import NatsSettings

_log = logging.getLogger("ajhost.supervisor")


class NatsAccess:
    """`present` is what lets us in, whatever the generation that serves was made with."""

    def __init__(self, present: NatsSettings, workers: Callable[[], Iterable[WorkerProcess]]) -> None:
        self.present, self._workers = present, workers
        self.own: Connection | None = None
        """The supervisor's connection, once there is one."""
        self._generation = 0
        """Workers up to this generation have other settings from their spec."""

    def adopt(self, settings: NatsSettings) -> None:
        """A reload has succeeded: every process uses these, and one that serves connects anew with them."""
        self._hand_on(settings, move=True)

    async def offer(self, settings: NatsSettings, generation: int) -> None:
        """A reload of `generation` may be about to fail for another reason. Whoever has no connection gets these all
        the same if a server lets us in with them; who has one keeps it, and connects with these when it is lost."""
        if settings == self.present or not self._lost():
            return
        for server in servers_of(settings):
            if (await scout(settings, server, "ajhost reload")).welcome and self._lost():
                self._generation = generation
                _log.warning(
                    "NATS at %s lets us in with the changed settings: they are used from now on", server
                )
                self._hand_on(settings, move=False)
                break

    def tell(self, worker: WorkerProcess) -> None:
        """Tells a new worker what its generation was not made with."""
        if worker.generation <= self._generation:
            worker.send(AccessOrder(self.present, move=False))

    def _lost(self) -> bool:
        connections = [worker.ledger.connection() for worker in self._workers()]
        return (self.own is not None and not self.own.connected) or not all(c.subscribed for c in connections)

    def _hand_on(self, settings: NatsSettings, *, move: bool) -> None:
        self.present = settings
        for worker in self._workers():
            worker.send(AccessOrder(settings, move))
        if self.own is not None:
            self.own.reconfigure(settings, move=move)
