"""A worker's membership of the queue group: it joins when it starts, and leaves and joins as the supervisor orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ajhost.adapters.nats.connection import Connection
from ajhost.roles.messages import GroupLeft, WorkerReady


class GroupMembership:
    """The membership. Carries out the supervisor's last order (`set`), and reports it. `joins`: the first order."""

    def __init__(
        self,
        connection: Connection,
        subjects: Sequence[str],
        group: str,
        tell: Callable[[WorkerReady | GroupLeft], None],
        *,
        joins: bool,
    ) -> None:
        self._connection, self._subjects, self._group_name = connection, subjects, group
        self._tell, self._joins = tell, joins
        self._begun = False
        self._work: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connects, as a member or not, however long it takes."""
        await self._connection.connect(*self._wanted())

    async def announce(self) -> None:
        """Carries out the last order, which tells the supervisor that the worker serves, or is outside the group."""
        self._begun = True
        self.set(self._joins)
        while (work := self._work) is not None and not work.done():
            await asyncio.wait({work})

    def set(self, joins: bool) -> None:
        """Obeys an order. Before `announce` the log-in carries it out."""
        self._joins = joins
        if not self._begun:
            self._connection.want(*self._wanted())
            return
        self.close()
        self._work = asyncio.create_task(self._obey(joins))

    def close(self) -> None:
        """Cancels the order that is being carried out."""
        if self._work is not None:
            self._work.cancel()

    def _wanted(self) -> tuple[Sequence[str], str]:
        return (self._subjects, self._group_name) if self._joins else ((), "")

    async def _obey(self, joins: bool) -> None:
        if joins:
            await self._connection.subscribe(*self._wanted())
            await self._connection.up.wait()
            self._tell(WorkerReady())
        else:
            await self._connection.unsubscribe()
            self._tell(GroupLeft())
