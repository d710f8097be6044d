"""Drains the host for `ajhost drain`, and ends that for `ajhost resume`: keeps who asked, says how much is left, finds
at a start that the host was drained when it was killed, and decides whether the next start begins drained
(`state_file.py` keeps it): not after a stop in order. `core/fleet.py` decides what workers do.

A drain outlives reloads, workers, and a supervisor that is killed (`state_file.py`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from ajhost.core.fleet import Drain, Resume
from ajhost.core.host_counters import held_in
from ajhost.core.status_report import drain_text
from ajhost.core.timeline import EventKind, Timeline
from ajhost.core.timings import DRAIN_ANSWER_LIMIT, POLL_INTERVAL
from ajhost.ledger.view import Ledger
from ajhost.roles.supervisor import state_file
from ajhost.roles.supervisor.control_socket import Decision
from ajhost.roles.supervisor.waiting_phase import SupervisorPhase
from ajhost.roles.supervisor.worker_pool import WorkerPool

_log = logging.getLogger("ajhost.supervisor")


class Drainer:
    """The drain. `on_change()` is called when the host begins to drain, is drained, or resumes."""

    def __init__(
        self, pool: WorkerPool, timeline: Timeline, phase: SupervisorPhase, on_change: Callable[[], None]
    ) -> None:
        self._pool, self._timeline, self._on_change = pool, timeline, on_change
        self.phase = phase
        self._drained = False
        self.asked = ("", 0.0)
        """Who asked for the drain, and when (seconds since 1970); empty if the host does not drain."""
        if (before := state_file.read(pool.runtime)) is not None and before.draining:
            _log.warning("the host is drained, as it was when its supervisor was killed: `ajhost resume` ends it")
            self.asked = before.drain_by, before.drain_at
            pool.handle(Drain())

    def is_kept(self, *, stopping: bool) -> bool:
        """Whether the next start drains, too: not after a stop, as who starts the service then wants it to serve."""
        return self._pool.fleet.draining and not stopping

    def tick(self) -> None:
        """Logs, once for each drain, that nothing is left. Call it about once a second."""
        if self._drained is not (drained := self._is_drained()):
            self._drained = drained
            self._on_change()
            if drained:
                _log.warning("drained: nothing is left; `ajhost resume` ends it")

    @property
    def text(self) -> str:
        """`draining: 3 tasks left` or `drained`; empty if the host does not drain."""
        if not self._pool.fleet.draining:
            return ""
        return drain_text(self._left(), drained=self._is_drained())

    async def obey_drain(self, asked: Mapping[str, object]) -> Decision:
        """Drains. Returns when the host is out of the group, or soon."""
        if not self._pool.fleet.draining:
            _log.warning("draining: the host leaves the queue group and finishes what it holds")
            self._timeline.add(EventKind.DRAINED, "the host leaves the queue group")
            self.asked = str(asked.get("by", "")), time.time()
            self._pool.handle(Drain())
            self._on_change()
        await self._wait(self._is_out)
        return Decision(True, self.text)

    async def obey_resume(self, asked: Mapping[str, object]) -> Decision:
        """Ends the drain. Returns when every slot serves, or soon."""
        del asked
        fleet = self._pool.fleet
        if fleet.draining:
            _log.warning("resumed: the host joins the queue group again")
            self._timeline.add(EventKind.DRAINED, "the host joins the queue group again")
            self.asked = "", 0.0
            self._pool.handle(Resume())
            self._on_change()
        await self._wait(lambda: fleet.serving() >= fleet.count)
        return Decision(True, f"{fleet.serving()} of {fleet.count} workers serve")

    @staticmethod
    async def _wait(done: Callable[[], bool]) -> None:
        end = time.monotonic() + DRAIN_ANSWER_LIMIT
        while True:
            if done() or time.monotonic() >= end:
                return
            await asyncio.sleep(POLL_INTERVAL)

    def _left(self) -> int:
        """Counts the tasks that have no answer yet, or one that has not left."""
        ledgers: list[Ledger] = [worker.ledger for worker in self._pool.workers.values()]
        ledgers += [*self.phase.ledgers, *self.phase.retired]
        return sum(held_in(ledger).left for ledger in ledgers)

    def _is_out(self) -> bool:
        """Whether every process is out of the group, and nothing is left to recover."""
        return self._pool.fleet.withdrawn() and self.phase.idle

    def _is_drained(self) -> bool:
        return self._is_out() and not self._left()  # in this order: counting looks at every entry
