"""A worker's drain: it leaves the queue group, finishes what it holds, has its last replies confirmed, and waits for
what handlers left running. At `drain_timeout` it answers `draining:` for the rest. `ajhost drain` is carried out by
`roles/supervisor/drain.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from ajhost.core.timings import CLOSE_LIMIT, FLUSH_LIMIT, POLL_INTERVAL, POLL_INTERVAL_LAST
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.messages import GroupLeft
from ajhost.roles.worker.composition import WorkerParts
from ajhost.roles.worker.left_running import LeftRunning

_log = logging.getLogger("ajhost.worker")


class Drain:
    """The drain of a worker. It begins to leave the group when it is made."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts, self._ending, self._out = parts, parts.ending, parts.transport.out
        self._leaving = asyncio.create_task(self._leave())

    async def run(self, left_running: LeftRunning | None) -> None:
        """Waits until no request is held and nothing `left_running`. After `drain_timeout` answers or cuts the rest."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._parts.spec.workers.drain_timeout
        while not self._done():
            left = end - loop.time()
            if left <= 0 or self._ending.hurry.is_set():
                if self._unfinished:
                    _log.warning("%d tasks remain: answering that they were not finished", self._unfinished)
                self._parts.consumer.end()  # slots that become free now must stay free
                self._parts.intake.give_up(FailureReason.DRAINING.text("the host stopped before the task ended"))
                break
            await asyncio.sleep(min(POLL_INTERVAL_LAST, left))
        await self._flush(end)
        if left_running is not None:
            await left_running.wait(end, self._ending.hurry)

    def close(self) -> None:
        """Cancels the leaving of the group: the connection is closed."""
        self._leaving.cancel()

    async def _leave(self) -> None:
        self._parts.group.close()
        await self._parts.connection.leave()
        self._parts.channel.tell(GroupLeft())

    def _done(self) -> bool:
        self._parts.producer.expire(time.monotonic_ns())
        self._out.confirm()
        if self._leaving.done():
            self._leaving.result()
        return self._leaving.done() and self._ending.finish.is_set() and not self._unfinished

    @property
    def _unfinished(self) -> int:
        return self._parts.ledger.held - self._out.retransmit.held

    async def _flush(self, end: float) -> None:
        """Waits until the server has confirmed the last replies, for `FLUSH_LIMIT` at most.

        After a restart of the server requesters may not be back: replies are repeated until `end`, if that is later.
        """
        loop = asyncio.get_running_loop()
        least = loop.time() + FLUSH_LIMIT
        while True:
            self._out.confirm()
            repeating = self._out.retransmit.repeating and not self._ending.hurry.is_set()
            if not (self._out.unsent or self._out.retransmit.unconfirmed or repeating):
                break
            if loop.time() >= (max(least, end) if repeating else least):
                break
            await asyncio.sleep(POLL_INTERVAL)
        self._out.release_held()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._parts.connection.close()
