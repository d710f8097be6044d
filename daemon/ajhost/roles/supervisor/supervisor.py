"""The supervisor: one run of the host. Decides the order of its start and its stop, which commands it refuses
meanwhile, what `state.json` says, and that a new generation follows a template's death. Tells systemd READY. Runs no
user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

import orjson

from ajhost import __version__
from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import os_error_texts
from ajhost.adapters.linux.stray_processes import StrayProcesses
from ajhost.adapters.logs import log_outputs
from ajhost.adapters.nats.requester import discover
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.host_counters import HostStats
from ajhost.core.timeline import EventKind, Timeline
from ajhost.ledger.view import Ledger
from ajhost.roles import control_client, status_reader
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.recent_attempts import recent_attempts
from ajhost.roles.request_check import describe_signatures
from ajhost.roles.supervisor import state_file
from ajhost.roles.supervisor.control_socket import Action, Actions, Decision
from ajhost.roles.supervisor.drain import Drainer
from ajhost.roles.supervisor.fd_store import FdStore
from ajhost.roles.supervisor.generations import Generations
from ajhost.roles.supervisor.metrics_snapshot import snapshot
from ajhost.roles.supervisor.nats_service import ServiceResponder
from ajhost.roles.supervisor.readiness import STOPPING, starting_text, status_line, unserved_slots
from ajhost.roles.supervisor.recovery.previous_start import new_serial
from ajhost.roles.supervisor.recycle import obey_recycle
from ajhost.roles.supervisor.reload import Reloader, turned_down
from ajhost.roles.supervisor.running_phase import RunningPhase
from ajhost.roles.supervisor.shutdown import Shutdown, Urgency, stop_limit
from ajhost.roles.supervisor.stacks import obey_stacks
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.state_file import HostState
from ajhost.roles.supervisor.template_process import TemplateFailed
from ajhost.roles.supervisor.waiting_phase import SupervisorPhase
from ajhost.roles.supervisor.worker_pool import PoolEvents, WorkerPool
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.sections import LogSettings, Settings

_log = logging.getLogger("ajhost.supervisor")


class StartupFailed(Exception):
    """The host cannot start; the text says why."""


def configure_log(log: LogSettings) -> None:
    """Writes the supervisor's records as `[log]` says, from now on."""
    log_outputs.configure(log, "supervisor")


class Supervisor(PoolEvents):
    """One run of the host, from its start to its stop."""

    def __init__(self, settings: Settings, load: Callable[[], Settings], notifier: Notifier) -> None:
        self._notifier = notifier
        self._loop = asyncio.get_running_loop()
        self._runtime = settings.runtime.directory
        self._generations = Generations(self._runtime)
        self.serial = new_serial()
        """Names the supervisor's own ledger."""
        self.written_state: object = None
        """The file that `state.json` was when last written (`state_file.which`); None: it could not be written."""
        self._stopping = False
        self._fd_store = FdStore(notifier)
        self.guard = FaultGuard(_log)
        """Counts the exceptions of the supervisor's periodic work, which goes on after each."""
        self._pool = WorkerPool(self._generations, self.serial, self.guard, settings.nats, self._fd_store, self)
        self._phase = SupervisorPhase()
        self._fleet = self._pool.fleet
        self.timeline = Timeline(time.time)
        """Starts, reloads, deaths and the like, for the page."""
        self._shutdown = Shutdown(self._pool, notifier)
        self._reloader = Reloader(self._pool, settings, load, self._on_reloaded)
        self._began_ns = time.monotonic_ns()
        self._strays = StrayProcesses(self._pool.known_processes)
        self._drainer = Drainer(self._pool, self.timeline, self._phase, self._tell_state)

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs the host until it has stopped.

        :raises StartupFailed: when the host cannot start.
        """
        self._shutdown.heed_signals()
        self.write_state()
        self._loop.add_signal_handler(signal.SIGHUP, lambda: self._pool.background.spawn(self.reload()))
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
        spec = self._generations.make(self._reloader.settings)
        routes = ", ".join(repr(h.route) for h in spec.handlers)
        _log.info("starting %d workers for %s", spec.workers.count, routes)
        _log.info("%s", describe_signatures(spec.signature))
        template = asyncio.create_task(self._generations.load(spec))
        standby = asyncio.create_task(self._open_standby(spec))
        try:
            # the first failure counts: bad handlers are reported even while no server can be reached
            await asyncio.wait({template, standby}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (template, standby):
                if task.done():
                    task.result()
        except TemplateFailed as error:
            raise StartupFailed("\n".join(error.problems)) from error
        finally:
            template.cancel()
            standby.cancel()
        self._write_state()
        self._pool.change_over(1, template.result())
        if failures := self._generations[1].failures:
            raise StartupFailed(failures[0])  # a ledger that cannot be made: the host does not start without

    async def _open_standby(self, spec: GenerationSpec) -> None:
        """Opens the supervisor's own ledger and connection, and recovers at once what an earlier start left."""
        try:
            self._pool.max_payload = await discover(spec.nats, self._on_waiting)
            service = None
            if spec.nats.service:
                service = ServiceResponder(self._runtime, self.serial, lambda: self._fleet.serving() > 0, self._loaded)
            standby = Standby(
                spec, self.serial, self._generations.queues, self._pool.max_payload, self._fd_store, service
            )
        except OSError as error:
            raise StartupFailed(os_error_texts.described(error)) from error
        self._pool.supervisor_place, self._pool.access.own = standby.ledger.place, standby.connection
        await standby.connection.connect()
        running = RunningPhase(standby, self._pool, self._fd_store, self._notifier, self._strays, self._drainer, spec)
        self._phase = running
        self._drainer.phase = running
        await running.begin()

    def _loaded(self) -> Sequence[HandlerDescription]:
        """Returns the handlers of the present generation; none while it has no template."""
        template = self._generations.template(self._fleet.generation)
        return () if template is None else template.handlers

    def _on_waiting(self, why: str) -> None:
        self._phase.waiting = why
        self._notifier.status(f"waiting for NATS: {why}")
        self.write_state()

    # -- events ---------------------------------------------------------------------------------

    def changed(self) -> None:
        self._shutdown.changed.set()
        if self._phase.become_ready():
            self.write_state()
            _log.info("ready: %d workers serve", self._fleet.count)
            self.timeline.add(EventKind.READY, f"{self._fleet.count} workers serve")
            self._notifier.ready(self._status())

    def worker_died(self, worker: WorkerProcess, how: str) -> None:
        if worker.result is None or worker.result.code != 0:
            self.timeline.add(EventKind.DEATH, f"{worker} died: {how}")
            self._tell_state()
        self._phase.worker_died(worker, how)

    def worker_replaced(self, worker: WorkerProcess, why: str) -> None:
        self.timeline.add(EventKind.REPLACED, f"{worker}: {why}")
        self.write_state()

    def template_died(self, generation: int, how: str) -> None:
        """Replaces the present generation if its template died: the code may have changed. Workers serve meanwhile."""
        self._strays.hunt()
        if generation == self._fleet.generation and self._shutdown.urgency is Urgency.NONE:
            _log.error("the template died (%s): a new generation follows", how)
            self.timeline.add(EventKind.DEATH, f"the template of generation {generation} died: {how}")
            self._pool.background.spawn(self._reloader.renew())

    def _tell_state(self) -> None:
        self.write_state()
        if self._phase.ready:
            self._notifier.status(self._status())

    # -- reload ---------------------------------------------------------------------------------

    @property
    def actions(self) -> Actions:
        """The actions that a command can request at the control socket."""
        return {
            "reload": lambda _: self.reload(),
            "cancel": lambda asked: self._phase.cancel(asked),
            "stacks": lambda asked: obey_stacks(self._pool, asked),
            "recycle": self._in_service(lambda asked: obey_recycle(self._pool, asked)),
            "drain": self._in_service(self._drainer.obey_drain),
            "resume": self._in_service(self._drainer.obey_resume),
        }

    def _in_service(self, action: Action) -> Action:
        """Returns an action that is refused while the host starts or stops."""

        async def obey(asked: Mapping[str, object]) -> Decision:
            unfit = self._out_of_service()
            return Decision(False, unfit) if unfit else await action(asked)

        return obey

    def _out_of_service(self) -> str:
        """Returns why there are no workers to act on; empty if there are."""
        if self._stopping:
            return STOPPING
        return "" if self._fleet.count else starting_text(self._phase.waiting)

    async def reload(self) -> Decision:
        """Proves new settings and code and takes them, or keeps the old ones and says why."""
        if unfit := self._out_of_service():
            return turned_down(unfit, stopping=self._stopping)
        if self._phase.ready:
            self._notifier.reloading()
        decision = await self._reloader.reload()
        if decision.taken:
            self._pool.counters.reloads_taken += 1
            _log.info("reloaded: %s", decision.text)
            self.timeline.add(EventKind.RELOADED, decision.text)
        else:
            self._pool.counters.reloads_rejected += 1
            rejected = f"rejected, the old generation {self._old_generation()}:"
            _log.error("reload %s %s", rejected, decision.text)
            self.timeline.add(EventKind.REJECTED, decision.text)
            decision = Decision(False, f"{rejected}\n{decision.text}")
        self.write_state()
        if self._phase.ready and not self._stopping:
            self._notifier.ready(self._status())
        return decision

    def _old_generation(self) -> str:
        """Says what becomes of the generation that a rejected reload leaves in place."""
        if self._stopping:
            return "leaves"
        if drain := self._drainer.text:
            return f"stays, {drain}"
        return "serves on" if self._fleet.serving() else "stays, and no worker of it serves"

    def _on_reloaded(self, before: Settings, spec: GenerationSpec) -> None:
        """Takes over the settings of a reload that has succeeded, which replace those of `before`."""
        settings = self._reloader.settings
        if settings.log != before.log:
            configure_log(settings.log)
        if settings.signature != before.signature:
            _log.warning("%s", describe_signatures(settings.signature))
        self._phase.apply_generation(spec)
        self._pool.access.use(settings.nats, move=True)

    # -- reports on the host --------------------------------------------------------------------

    def _status(self) -> str:
        return status_line(self._pool, self._drainer.text)

    def status(self) -> dict[str, object]:
        """Returns what `ajhost status --json` shows, read from shared memory now."""
        own = next(iter(self._phase.ledgers), None)
        return status_reader.read_status(self._runtime, self.serial, own).as_object()

    def view(self) -> bytes:
        """Returns what the socket `view` shows: the status and the recent attempts."""
        return orjson.dumps(self.status() | {control_client.ATTEMPTS: recent_attempts(self._runtime)})

    def stats(self) -> HostStats:
        """Returns the statistics of the host now, for metrics."""
        return snapshot(self._pool, self._phase, ready=not self.unserved())

    def unserved(self) -> list[str]:
        """Returns a line for each slot that does not serve, with what is there instead; none: the host is ready."""
        return unserved_slots(self._pool, self._drainer.text, self._phase.waiting)

    def ledgers(self) -> list[Ledger]:
        """Returns the ledgers of this supervisor and of its workers."""
        return [*(m.ledger for m in self._pool.workers.values()), *self._phase.ledgers]

    def recycle_without_ledger(self) -> list[int]:
        """Replaces each worker whose ledger is not the file at its path any more. Returns their slots."""
        without = [worker for worker in self._pool.workers.values() if not worker.ledger.in_place]
        self._pool.recycle(without, "its ledger file was removed")
        return [worker.slot for worker in without]

    def write_state(self) -> None:
        """Writes `state.json` for commands. If that fails, `RuntimeFiles.keep` has it tried again."""
        self.written_state = None
        with self.guard("writing state.json"):
            self._write_state()

    def _write_state(self) -> None:
        last_death, died_at = self.timeline.last(EventKind.DEATH)
        last_replaced, replaced_at = self.timeline.last(EventKind.REPLACED)
        drain_by, drain_at = self._drainer.asked
        settings = self._reloader.settings
        self.written_state = state_file.write(
            self._runtime,
            HostState(
                pid=os.getpid(),
                generation=self._fleet.generation,
                ready=self._phase.ready,
                count=self._fleet.count,
                routes={number: generation.routes for number, generation in self._generations.items()},
                settings=str(settings.file) if settings.has_file else "",
                version=__version__,
                started_ns=self._began_ns,
                waiting=self._phase.waiting,
                draining=self._drainer.is_kept(stopping=self._shutdown.urgency is not Urgency.NONE),
                last_death=last_death,
                died_at=died_at,
                stopping=self._stopping,
                last_replaced=last_replaced,
                replaced_at=replaced_at,
                drain_by=drain_by,
                drain_at=drain_at,
            ),
        )

    # -- the end --------------------------------------------------------------------------------

    async def _stop(self) -> None:
        hint = "; a second signal hurries them" if self._pool.workers else ""
        _log.info("stopping: %d workers leave%s", len(self._pool.workers), hint)
        self._stopping = True
        self._reloader.end()
        self._notifier.stopping("leaving the queue group")
        self.write_state()  # an ordered stop ends a drain
        await self._phase.stop(self._shutdown, stop_limit(self._reloader.settings))
        await self._generations.end_templates()
        await self._strays.end_all()
        for queue in self._generations.queues:
            queue.close()
        self._shutdown.ignore_signals()
        _log.info("stopped")
