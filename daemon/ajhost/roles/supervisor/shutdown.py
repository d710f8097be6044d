"""Stops the host at SIGTERM or SIGINT: every worker leaves the queue group, finishes and answers, and systemd is asked
to wait for it. A second signal hurries them, a third kills. The rest is answered `draining:`, or kept for the next
start. If systemd is about to start the unit again, the host stays subscribed to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from enum import IntEnum

from ajhost.adapters.systemd.jobs import restart_follows
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.fleet import Stop
from ajhost.core.timings import (
    EXIT_LIMIT,
    POLL_INTERVAL,
    POLL_INTERVAL_LAST,
    RESTART_QUERY_LIMIT,
    STATUS_INTERVAL,
    STOP_MARGIN,
)
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.messages import FinishOrder, HurryOrder
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.recovery.procedure import Recovery
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_pool import WorkerPool
from ajhost.settings.sections import Settings

_log = logging.getLogger("ajhost.supervisor")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Urgency(IntEnum):
    """How urgent a stop is; each further signal raises it by one."""

    NONE = 0
    DRAIN = 1
    HURRY = 2
    KILL = 3


def stop_limit(settings: Settings) -> float:
    """Returns how many seconds a worker has to end: for its tasks, its lifespan, and what `atexit` runs."""
    python = settings.python
    return settings.workers.drain_timeout + (python.stop_timeout if python.lifespan else 0.0) + EXIT_LIMIT


class Shutdown:
    """The stop of the host. Signals request it (`urge`); it runs once (`run`)."""

    def __init__(self, pool: WorkerPool, notifier: Notifier) -> None:
        self._pool, self._notifier = pool, notifier
        self.urgency = Urgency.NONE
        self.asked = asyncio.Event()
        self.changed = asyncio.Event()
        """Set after each event of the fleet (a worker has ended or left, say), and when the urgency has risen."""

    def heed_signals(self) -> None:
        """Has SIGTERM and SIGINT call `urge`."""
        for number in _STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.urge)

    @staticmethod
    def ignore_signals() -> None:
        """Ignores further signals: one that arrives after the stop would kill this process, and be its exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        for number in _STOP_SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)

    def urge(self) -> None:
        """Handles a signal to stop, the first or a further one."""
        self.urgency = Urgency(min(self.urgency + 1, Urgency.KILL))
        self.asked.set()
        self.changed.set()

    async def run(self, standby: Standby, last_resort: LastResort, recovery: Recovery, drain_timeout: float) -> None:
        """Stops the host. Returns when every worker has ended, and every answer has left or is kept in the ledger.

        When systemd is about to start the unit again, the supervisor of a host that is not drained stays subscribed to
        the end. What arrives meanwhile waits in its ledger and in the socket that systemd stores, and the next start
        runs it. So no requester is told `no responders`.
        """
        last_resort.stopping = True
        returning = await restart_follows(RESTART_QUERY_LIMIT)
        if returning:
            _log.info("a restart follows: requests that come from now on wait for it")
            standby.holding = True
            if not self._pool.fleet.draining:
                await last_resort.subscribe()
        else:
            await last_resort.unsubscribe()
        recovery.shorten_waits()
        self._pool.handle(Stop())
        await self._drain(standby, returning, drain_timeout)
        if returning:
            await standby.flush(STOP_MARGIN)
        else:
            await self._answer_the_rest(standby, recovery)

    async def _drain(self, standby: Standby, returning: bool, drain_timeout: float) -> None:
        pool = self._pool
        end, told, urged = time.monotonic() + drain_timeout + STOP_MARGIN, 0.0, Urgency.DRAIN
        finishing = False
        while pool.workers or pool.background.tasks:
            workers, now = list(pool.workers.values()), time.monotonic()
            if not finishing and all(m.left for m in workers) and (returning or not standby.producer.count):
                finishing = True  # nothing new is enqueued: a worker that holds nothing may end
                for worker in workers:
                    worker.send(FinishOrder())
            if self.urgency > urged:
                urged = self.urgency
                _log.warning("hurrying: %d workers remain", len(workers))
                for worker in workers:
                    worker.send(HurryOrder())
            if now > end or self.urgency is Urgency.KILL:
                for worker in workers:
                    if not worker.killed_at:
                        _log.error("%s does not end: SIGKILL", worker)
                        worker.kill()
            if now >= told:
                told = now + STATUS_INTERVAL
                self._tell(max(end - now, 0.0))
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL):
                    await self.changed.wait()

    def _tell(self, left: float) -> None:
        workers = self._pool.workers.values()
        running = sum(m.ledger.running() for m in workers)
        self._notifier.extend(2 * STOP_MARGIN)
        self._notifier.status(f"draining: {len(workers)} workers, {running} tasks run")
        if running:
            _log.info("draining: %d workers, %d tasks run, %.0f s left", len(workers), running, left)

    async def _answer_the_rest(self, standby: Standby, recovery: Recovery) -> None:
        text = FailureReason.DRAINING.text("the host stopped before a worker became free")
        standby.reject_waiting(text)
        recovery.retired.reject_waiting(text)
        end = time.monotonic() + STOP_MARGIN
        while recovery.retired.ledgers and time.monotonic() < end:
            recovery.retired.tick(time.monotonic_ns())
            await asyncio.sleep(POLL_INTERVAL_LAST)
        if not await standby.close(STOP_MARGIN):
            _log.error("NATS cannot be reached: answers are kept for the next start")
