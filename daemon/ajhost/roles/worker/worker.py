"""The worker: its life from the first heartbeat to the drain, and the orders that it obeys meanwhile."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time

from ajhost import api
from ajhost.adapters.linux import proc
from ajhost.ledger.layout import Phase, Word
from ajhost.protocol.outcome import Failed, Terminated
from ajhost.roles import messages
from ajhost.roles.handlers import load_lifespan
from ajhost.roles.lifespan import LifespanFailed, LifespanRunner
from ajhost.roles.messages import WorkerSpec
from ajhost.roles.worker import forked_child
from ajhost.roles.worker.composition import WorkerParts
from ajhost.roles.worker.drain import Drain
from ajhost.roles.worker.heartbeat import Heartbeat
from ajhost.roles.worker.left_running import LeftRunning
from ajhost.roles.worker.retirement import LIFESPAN_ENDED

_log = logging.getLogger("ajhost.worker")
_START_FAILED = os.EX_TEMPFAIL  # the exit status


class Worker:
    def __init__(self, parts: WorkerParts, worker_spec: WorkerSpec) -> None:
        self._parts, self._ending, self._spec = parts, parts.ending, parts.spec
        self.heartbeat = Heartbeat(parts)
        self._pull_while_leaving = True
        self._lifespan: LifespanRunner | None = None
        python = parts.spec.python
        if (name := python.lifespan) is not None:
            described = api.Worker(worker_spec.slot, worker_spec.generation, os.getpid())
            on_end = functools.partial(parts.retirement.ask, LIFESPAN_ENDED)
            beat = self.heartbeat.from_thread
            self._lifespan = LifespanRunner(name, load_lifespan(name), python, described, on_end, beat)
        self._left_running: LeftRunning | None = None
        """Made after the lifespan's entry, so that what the application leaves running there does not count."""

    async def run(self) -> int:
        """Serves until ordered to leave, then drains. Returns the exit status."""
        self._parts.channel.listen(self._obey)
        forked_child.watch(self._parts.loop)
        self.heartbeat.beat()
        serving = asyncio.create_task(self._serve())
        leaving = asyncio.create_task(self._ending.leave.wait())
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            try:
                serving.result()  # any other error is a bug: it ends the process, and the supervisor answers
            except LifespanFailed as error:  # the supervisor starts another worker after a pause
                _log.error("%s", error, exc_info=error.__cause__)
                self._parts.channel.tell(messages.StartFailed(str(error)))
                return _START_FAILED
            await leaving
        serving.cancel()
        await self._drain()
        return 0

    async def _serve(self) -> None:
        parts = self._parts
        if self._lifespan is not None:
            parts.watchdog.extend(time.monotonic() + self._spec.python.start_timeout)
            parts.intake.state = await self._lifespan.enter()
        self._left_running = LeftRunning(parts.loop)
        # before the first task, whose memory could not be told apart from that of the start
        parts.ledger.words[Word.SIZE_AT_START] = proc.resident_bytes(os.getpid())
        await parts.group.connect()
        if not self._ending.leave.is_set():
            parts.ledger.words[Word.PHASE] = Phase.SERVING
            await parts.group.announce()  # before any task: the fleet recycles only workers that serve
            parts.consumer.begin()

    async def _drain(self) -> None:
        parts = self._parts
        parts.ledger.words[Word.PHASE] = Phase.LEAVING
        if not self._pull_while_leaving:
            parts.consumer.end()
        drain = Drain(parts)
        await drain.run(self._left_running)
        if self._lifespan is not None:
            parts.watchdog.extend(time.monotonic() + self._spec.python.stop_timeout)
            await self._lifespan.exit()
        self.heartbeat.count()
        parts.attempts.limits.close()
        drain.close()

    def _obey(self, order: messages.ToWorker) -> None:
        parts = self._parts
        match order:
            case messages.LeaveOrder(stop):
                self._pull_while_leaving = stop
                if stop:
                    parts.retirement.lift_limit()
                else:
                    self._ending.finish.set()
                self._ending.leave.set()
            case messages.MembershipOrder(joins):
                parts.group.set(joins)
            case messages.FinishOrder():
                self._ending.finish.set()
            case messages.CancelOrder(task, terminate, text):
                outcome = Terminated(text) if terminate else Failed(text)
                found = parts.intake.cancel(task, outcome)
                # before the supervisor is told: the router has its answer even if this worker dies then
                parts.transport.out.flush()
                parts.channel.tell(messages.CancelResult(task, found))
            case messages.AccessOrder(nats, move):
                parts.connection.reconfigure(nats, move=move)
            case messages.StacksOrder(task):
                parts.channel.tell(messages.StacksResult(task, parts.executor.stacks(task)))
            case messages.HurryOrder():
                self._ending.hurry.set()
