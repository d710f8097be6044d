"""The supervisor: starts, covers the group, reloads, and stops in order. It runs no user code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable

from ajhost.adapters import logs, nats
from ajhost.adapters.processes import Orphans
from ajhost.adapters.sd_notify import Notifier
from ajhost.core.figures import Figures
from ajhost.core.fleet import Fleet, Stalled, Tick, Woke
from ajhost.core.layout import Phase, Word
from ajhost.core.ledger import Ledger
from ajhost.roles.plan import GenerationPlan
from ajhost.roles.shared_queue.lane import Lane, lane_names, open_lane
from ajhost.roles.supervisor import state_file
from ajhost.roles.supervisor.burial import Undertaker, Verdicts
from ajhost.roles.supervisor.crew import Crew
from ajhost.roles.supervisor.desk import Desk
from ajhost.roles.supervisor.leftovers import new_serial
from ajhost.roles.supervisor.member import Member
from ajhost.roles.supervisor.metrics import look
from ajhost.roles.supervisor.reload import Decision, Reloader
from ajhost.roles.supervisor.shutdown import Shutdown, Urgency
from ajhost.roles.supervisor.state_file import HostState
from ajhost.roles.supervisor.stored import Key, Stored
from ajhost.roles.supervisor.watch import CALM_TICK, TICK, Watch
from ajhost.roles.template.client import Template, TemplateFailed
from ajhost.settings.values import Settings

_log = logging.getLogger("ajhost.supervisor")
_STATUS_EVERY = 1.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StartupFailed(Exception):
    """The host cannot start; the text says why."""


class Supervisor:
    """One run of the host."""

    def __init__(self, settings: Settings, load: Callable[[], Settings], notifier: Notifier) -> None:
        self._settings, self._notifier = settings, notifier
        self._loop = asyncio.get_running_loop()
        self._runtime = settings.runtime.directory
        self._lanes: list[Lane] = []
        self.serial = new_serial()
        """Of our own ledger."""
        self._stored = Stored(notifier)
        self._crew = Crew(
            self._runtime,
            self.serial,
            self._lanes,
            kept=self._stored.keep,
            ended=self._on_ended,
            bereft=self._on_bereft,
            changed=self._on_changed,
        )
        self._fleet = self._crew.fleet
        self._desk: Desk | None = None
        self._ready = False
        self._shutdown = Shutdown(self._crew, notifier)
        self._reloader = Reloader(self._crew, settings, load, self._plan, self._start_template, self._take)
        self._status_at = self._tick_at = 0.0
        self._orphans = Orphans()

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """From start to stop.

        :raises StartupFailed: when the host cannot start.
        """
        for number in _STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._shutdown.urge)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        starting = asyncio.create_task(self._start())
        urged = asyncio.create_task(self._shutdown.asked.wait())
        await asyncio.wait({starting, urged}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            if starting.exception() is not None:
                urged.cancel()
                await self._stop()
            starting.result()
        else:
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
        await urged
        await self._stop()

    async def _start(self) -> None:
        plan = self._plan(self._settings, 1)
        routes = ", ".join(repr(h.route) for h in plan.handlers)
        _log.info("starting %d workers for %s", plan.workers.count, routes)
        template = asyncio.create_task(self._start_template(plan))
        desk = asyncio.create_task(self._open_desk(plan))
        try:
            # whichever fails first: bad handlers are told even while no server can be reached
            await asyncio.wait({template, desk}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (template, desk):
                if task.done():
                    task.result()
        except TemplateFailed as error:
            raise StartupFailed("\n".join(error.problems)) from error
        finally:
            template.cancel()
            desk.cancel()
        self._write_state()
        self._crew.change(1, template.result())
        if 1 in self._crew.failed:  # a ledger that cannot be made: better no host than half a one
            raise StartupFailed(self._crew.failed[1][0])

    async def _open_desk(self, plan: GenerationPlan) -> None:
        """Our own ledger and connection; what an earlier start left is settled at once."""
        try:
            self._crew.max_payload = await nats.discover(plan.nats)
            desk = Desk(plan, self.serial, self._lanes, self._crew.max_payload, self._on_kept)
        except OSError as error:
            raise StartupFailed(f"{self._runtime}: {error.strerror or error}") from error
        await desk.connect()
        self._verdicts = Verdicts(plan.handlers)
        self._undertaker = Undertaker(
            desk.directory, desk, self._stored, self._verdicts, self._crew.tally,
            cover=self._cover_if_last, spawn=self._crew.spawn_task, serial=self._fleet.take_serial,
        )  # fmt: skip
        self._watch = Watch(desk, stalled=self._on_stalled, woke=self._on_woke, worn=self._crew.wear)
        self._desk = desk
        for name in self._undertaker.leftovers.inherit(self._notifier.stored()):
            self._notifier.forget(name)
        if self._undertaker.leftovers:
            await desk.cover()
        self._tick_in(0.0)  # what waits has deadlines, however long the import of handlers takes
        if self._undertaker.leftovers:
            await self._undertaker.settle_leftovers()

    def _plan(self, settings: Settings, generation: int) -> GenerationPlan:
        known = {lane.name for lane in self._lanes}
        self._lanes.extend(open_lane(n) for n in lane_names(settings.handlers) if n not in known)
        plan = GenerationPlan(
            generation=generation,
            runtime=self._runtime,
            nats=settings.nats,
            python=settings.python,
            workers=settings.workers,
            handlers=settings.handlers,
            signature=settings.signature,
            log=settings.log,
            lanes=tuple(lane.name for lane in self._lanes),
        )
        self._crew.plans[generation] = plan
        return plan

    async def _start_template(self, plan: GenerationPlan) -> Template:
        template = await Template.start(plan, self._lanes, plan.python.import_timeout)
        if template.threads:
            _log.warning("threads that an import started before the fork: %s", ", ".join(template.threads))
        return template

    # -- events ---------------------------------------------------------------------------------

    def _on_changed(self) -> None:
        self._shutdown.changed.set()
        if not self._ready and self._fleet.count and self._fleet.complete() and self._desk is not None:
            self._ready = True
            self._undertaker.leftovers.dismiss()
            self._desk.ledger.words[Word.PHASE] = Phase.SERVING
            self._write_state()
            _log.info("ready: %d workers serve", self._fleet.count)
            self._notifier.ready(self._status())

    def _on_kept(self, epoch: int, sock: socket.socket) -> None:
        self._stored.keep(Key(self.serial, epoch), sock)

    def _on_ended(self, member: Member, how: str) -> None:
        self._watch.forget(member)
        answered = self._undertaker.answer(member, how)
        self._crew.spawn_task(self._undertaker.bury(member, answered))

    def _on_stalled(self, member: Member) -> None:
        self._crew.handle(Stalled(member.serial))
        self._crew.spawn_task(self._undertaker.relieve(member, lambda: self._watch.hangs(member)))

    def _on_woke(self, member: Member) -> None:
        self._crew.handle(Woke(member.serial))

    async def _cover_if_last(self, patience: float | None) -> None:
        if self._desk is not None and not self._fleet.serving() and self._shutdown.urgency is Urgency.NONE:
            await self._desk.cover(patience)

    def _on_bereft(self, generation: int, how: str) -> None:
        """The code on disk may have changed since, so a new template is a new generation; workers live on."""
        if generation == self._fleet.generation and self._shutdown.urgency is Urgency.NONE:
            _log.error("the template died (%s): a new generation follows", how)
            self._crew.spawn_task(self._reloader.renew())

    # -- reload ---------------------------------------------------------------------------------

    def _reload_by_signal(self) -> None:
        self._crew.spawn_task(self._reload_and_tell())

    async def _reload_and_tell(self) -> None:
        await self.reload()

    async def reload(self) -> Decision:
        """Proves and takes new settings and code, or keeps the old and says why."""
        if not self._fleet.count:
            # nothing to change over from yet, and systemd still waits for the first READY
            _log.error("reload rejected: the host is still starting")
            return Decision(False, "the host is still starting")
        if self._ready:
            self._notifier.reloading()
        decision = await self._reloader.reload()
        if decision.taken:
            self._crew.tally.reloads_taken += 1
            _log.info("reloaded: %s", decision.text)
        else:
            self._crew.tally.reloads_rejected += 1
            _log.error("reload rejected, the old generation serves on: %s", decision.text)
        self._write_state()
        if self._ready:
            self._notifier.ready(self._status())
        return decision

    def _take(self, settings: Settings, plan: GenerationPlan) -> None:
        """A reload has succeeded."""
        self._settings = settings
        self._verdicts.follow(plan.handlers)
        if self._desk is not None:
            self._desk.follow(plan, self._lanes)

    # -- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        desk, now_ns = self._desk, time.monotonic_ns()
        assert desk is not None
        desk.beat(now_ns)
        workers = self._settings.workers
        self._watch.look(
            list(self._crew.members.values()),
            workers,
            self._settings.python.import_timeout,
            time.monotonic() - self._tick_at,
        )
        self._undertaker.tend(now_ns)
        self._crew.handle(Tick())
        if self._shutdown.urgency is Urgency.NONE and self._ready:
            needed = not self._fleet.serving()
            if needed != desk.covering and not desk.turning:
                self._crew.spawn_task(desk.cover() if needed else desk.uncover())
        self._follow_max_payload(desk)
        self._notifier.watchdog()
        if now_ns / 1e9 >= self._status_at:
            self._status_at = now_ns / 1e9 + _STATUS_EVERY
            self._notifier.status(self._status())
            self._orphans.reap(self._crew.pids())
            logs.report_lost()
            self._undertaker.tidy()
        calm = self._watch.calm and desk.idle and self._undertaker.idle
        self._tick_in(CALM_TICK if calm else TICK)

    def _tick_in(self, seconds: float) -> None:
        self._tick_at = time.monotonic() + seconds
        self._loop.call_later(seconds, self._tick)

    def _follow_max_payload(self, desk: Desk) -> None:
        """A server that takes larger payloads than before needs ledgers with a larger chunk."""
        if desk.max_payload > self._crew.max_payload and self._ready:
            _log.warning("the server's max_payload grew to %d: workers are replaced", desk.max_payload)
            self._crew.max_payload = desk.max_payload
            for member in list(self._crew.members.values()):
                self._crew.wear(member, "the server's max_payload grew")

    def _status(self) -> str:
        tasks = sum(m.ledger.running() for m in self._crew.members.values())
        return f"{self._fleet.serving()} of {self._fleet.count} workers serve, {tasks} tasks run"

    @property
    def fleet(self) -> Fleet:
        """Who serves."""
        return self._fleet

    def figures(self) -> Figures:
        """How the host stands now, for metrics."""
        desk = self._desk
        if desk is None:
            return look(self._crew, [], 0)
        others: list[Ledger] = [desk.ledger, *self._undertaker.graveyard.ledgers]
        return look(self._crew, others, desk.covered)

    def _write_state(self) -> None:
        routes = {g: [h.route for h in p.handlers] for g, p in self._crew.plans.items()}
        fleet = self._fleet
        state_file.write(
            self._runtime, HostState(os.getpid(), fleet.generation, self._ready, fleet.count, routes)
        )

    # -- the end --------------------------------------------------------------------------------

    async def _stop(self) -> None:
        _log.info("stopping: %d workers leave", len(self._crew.members))
        self._notifier.stopping("leaving the queue group")
        if self._desk is not None:
            await self._shutdown.run(self._desk, self._undertaker, self._settings.workers.drain_timeout)
        self._crew.close_templates()
        for lane in self._lanes:
            lane.close()
        self._ignore_signals()
        _log.info("stopped")

    def _ignore_signals(self) -> None:
        """One more signal to hurry, after the end: without this it would be how we end."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        for number in _STOP_SIGNALS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
