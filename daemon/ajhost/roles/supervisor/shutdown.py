"""The stop: everybody leaves the group, finishes and answers; what is left is answered for, or kept for a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from enum import IntEnum

from ajhost.adapters.sd_notify import Notifier
from ajhost.adapters.systemd_jobs import restart_follows
from ajhost.core.fleet import Stop
from ajhost.roles.supervisor.burial import Undertaker
from ajhost.roles.supervisor.crew import Crew
from ajhost.roles.supervisor.desk import Desk

_log = logging.getLogger("ajhost.supervisor")
_PATIENCE = 3.0
"""Seconds past the drain timeout until workers that do not end are killed, and for the last answers to leave."""
_LOOK = 0.05
_TELL_EVERY = 1.0
_ASK_SYSTEMD = 1.0


class Urgency(IntEnum):
    """How a stop is meant; each further signal raises it by one."""

    NONE = 0
    DRAIN = 1
    HURRY = 2
    KILL = 3


class Shutdown:
    """Asked for by signals (`urge`), carried out once (`run`)."""

    def __init__(self, crew: Crew, notifier: Notifier) -> None:
        self._crew, self._notifier = crew, notifier
        self.urgency = Urgency.NONE
        self.asked = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever something is worth another look."""

    def urge(self) -> None:
        """A signal to stop, or another one."""
        self.urgency = Urgency(min(self.urgency + 1, Urgency.KILL))
        self.asked.set()
        self.changed.set()

    async def run(self, desk: Desk, undertaker: Undertaker, drain_timeout: float) -> None:
        """Returns when nobody of the crew lives and every answer has left.

        When systemd is about to start us again, we stay subscribed to the very end: what comes meanwhile waits in our
        ledger and in the socket that systemd keeps, and the next start runs it. Nobody is told `no responders`.
        """
        returning = await restart_follows(_ASK_SYSTEMD)
        if returning:
            _log.info("a restart follows: requests that come from now on wait for it")
            desk.hold()
            await desk.cover()
        else:
            await desk.uncover()
        undertaker.hurry()
        self._crew.handle(Stop())
        await self._drain(desk, returning, drain_timeout)
        if returning:
            await desk.settle(_PATIENCE)
        else:
            await self._answer_the_rest(desk, undertaker)

    async def _drain(self, desk: Desk, returning: bool, drain_timeout: float) -> None:
        crew = self._crew
        end, told, urged = time.monotonic() + drain_timeout + _PATIENCE, 0.0, Urgency.DRAIN
        finishing = False
        while crew.members or crew.busy:
            members, now = list(crew.members.values()), time.monotonic()
            if not finishing and all(m.left for m in members) and (returning or not desk.lender.count):
                finishing = True  # nobody pushes any more: who has nothing left may go
                for member in members:
                    member.tell({"finish": True})
            if self.urgency > urged:
                urged = self.urgency
                _log.warning("hurrying: %d workers remain", len(members))
                for member in members:
                    member.tell({"hurry": True})
            if now > end or self.urgency is Urgency.KILL:
                for member in members:
                    if not member.killed_at:
                        _log.error("worker %d (pid %d) does not end: SIGKILL", member.slot, member.pid)
                        member.kill()
            if now >= told:
                told = now + _TELL_EVERY
                self._tell(max(end - now, 0.0))
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self.changed.wait()

    def _tell(self, left: float) -> None:
        members = self._crew.members.values()
        running = sum(m.ledger.running() for m in members)
        self._notifier.extend(2 * _PATIENCE)
        self._notifier.status(f"draining: {len(members)} workers, {running} tasks run")
        if running:
            _log.info("draining: %d workers, %d tasks run, %.0f s left", len(members), running, left)

    async def _answer_the_rest(self, desk: Desk, undertaker: Undertaker) -> None:
        text = "draining: the host stopped before a worker became free"
        desk.give_up(text)
        undertaker.graveyard.give_up(text)
        end = time.monotonic() + _PATIENCE
        while not undertaker.graveyard.empty and time.monotonic() < end:
            undertaker.graveyard.tend(time.monotonic_ns())
            await asyncio.sleep(_LOOK / 5)
        if not await desk.close(_PATIENCE):
            _log.error("NATS cannot be reached: answers are kept for the next start")
