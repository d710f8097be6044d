"""The pool of workers: forks, replaces and ends them as `core/fleet.py` commands, counts deaths and logs how each died
or why it cannot start, asks them about tasks. Replaces all when the server's `max_payload` has grown.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Collection, Iterable
from typing import Protocol

from ajhost.adapters.fault_guard import Background, FaultGuard
from ajhost.adapters.linux import ledger_file, os_error_texts, processes
from ajhost.adapters.linux.channel import pair
from ajhost.adapters.linux.memory import MemoryKills
from ajhost.adapters.linux.stray_processes import GENERATION_MARK
from ajhost.core import fleet
from ajhost.core.fleet import Fleet, WorkerState
from ajhost.core.host_counters import Counters
from ajhost.ledger.layout import Identity, Word
from ajhost.roles import ledger_sizes, messages
from ajhost.roles.messages import WorkerSpec
from ajhost.roles.supervisor.fd_store import FdStore, Key
from ajhost.roles.supervisor.generations import Generation, Generations
from ajhost.roles.supervisor.nats_access import NatsAccess
from ajhost.roles.supervisor.template_process import TemplateFailed, TemplateProcess
from ajhost.roles.supervisor.worker_process import WorkerEvents, WorkerProcess
from ajhost.settings.sections import NatsSettings

_log = logging.getLogger("ajhost.supervisor")


class PoolEvents(Protocol):
    """The events of the pool; `Supervisor` handles them."""

    def worker_died(self, worker: WorkerProcess, how: str) -> None:
        """Called for each worker that has ended, before its replacement is forked."""

    def worker_replaced(self, worker: WorkerProcess, why: str) -> None:
        """Called for each worker whose orderly replacement has been ordered."""

    def template_died(self, generation: int, how: str) -> None:
        """Called when the template of a generation has ended by itself. Its workers go on."""

    def changed(self) -> None:
        """Called after each event that the fleet has handled, also each tick."""


class WorkerInquiry:
    """Asks workers about tasks, one question at a time. A worker that does not answer in time hangs: the caller then
    reads its ledger. An answer that comes too late does not count for the next question.
    """

    def __init__(self) -> None:
        self._answers: dict[tuple[int, type, str], asyncio.Future[str]] = {}
        self._lock = asyncio.Lock()

    async def ask(
        self,
        workers: Collection[WorkerProcess],
        order: messages.CancelOrder | messages.StacksOrder,
        result: type[messages.CancelResult | messages.StacksResult],
        limit: float,
    ) -> dict[int, str]:
        """Returns the answers that arrive within `limit` seconds, by the worker's serial."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            self._answers = {(w.serial, result, order.task): loop.create_future() for w in workers}
            for worker in workers:
                worker.send(order)
            if workers:
                await asyncio.wait(self._answers.values(), timeout=limit)
            answers = {serial: text.result() for (serial, _, _), text in self._answers.items() if text.done()}
            self._answers = {}
            return answers

    def heard(self, worker: WorkerProcess, result: messages.CancelResult | messages.StacksResult) -> None:
        text = self._answers.get((worker.serial, type(result), result.task))
        if text is not None and not text.done():
            text.set_result(result.text)


class WorkerPool(WorkerEvents):
    """The worker processes. `serial`: that of the supervisor's ledger; the workers' serials follow it."""

    def __init__(
        self,
        generations: Generations,
        serial: int,
        guard: FaultGuard,
        nats: NatsSettings,
        fd_store: FdStore,
        events: PoolEvents,
    ) -> None:
        self.fleet = Fleet(serial + 1)
        self.counters = Counters()
        self.workers: dict[int, WorkerProcess] = {}
        self.access = NatsAccess(nats, self.workers.values)
        self.inquiry = WorkerInquiry()
        self._memory_kills = MemoryKills()
        self.generations = generations
        self.max_payload = 0
        self.supervisor_place = ""
        self._told_size = 0
        self.runtime = generations.runtime
        self._directory, self._serial = self.runtime / "ledger", serial
        self.guard = guard
        self._fd_store, self._events = fd_store, events
        self.background = Background(guard)
        """Forks, recoveries and the like."""

    def handle(self, event: fleet.Event) -> None:
        """Passes an event to the fleet, and executes its commands."""
        for serial, known in self.fleet.members.items():
            if known.state is WorkerState.LEAVING and (worker := self.workers.get(serial)) is not None:
                known.runs = worker.ledger.running() > 0
        for command in self.fleet.handle(event, time.monotonic()):
            with self.guard("obeying the fleet"):
                self._execute(command)
        for serial, known in self.fleet.members.items():
            if (worker := self.workers.get(serial)) is not None:
                worker.ledger.words[Word.WORKER_STATE] = fleet.state_number(known.state)
        self._events.changed()

    def change_over(self, number: int, template: TemplateProcess) -> None:
        """Moves every slot to a generation, whose workers this template forks."""
        generation = self.generations[number]
        generation.template, generation.in_use = template, True
        self.handle(fleet.Scale(number, generation.spec.workers.count))
        # not earlier: a template that died while the host waited for a server gets its replacement from here on
        template.on_death(lambda how: self._template_died(generation, how))

    # -- the fleet's commands ------------------------------------------------------------------

    def _execute(self, command: fleet.Command) -> None:
        match command:
            case fleet.Spawn():
                self._spawn(command)
            case fleet.Leave(serial, stop):
                if worker := self.workers.get(serial):
                    worker.send(messages.LeaveOrder(stop))
            case fleet.SetMembership(serial, joins):
                if worker := self.workers.get(serial):
                    worker.left = worker.left and not joins
                    worker.send(messages.MembershipOrder(joins))

    def _spawn(self, spawn: fleet.Spawn) -> None:
        try:
            worker, theirs = self._make(spawn)
        except Exception as error:  # whatever the error is, the slot must be filled again
            ledger_file.remove(self._directory, spawn.serial)
            self._spawn_failed(spawn, os_error_texts.described(error) if isinstance(error, OSError) else repr(error))
            return
        self.workers[spawn.serial] = worker
        self.background.spawn(self._fork(worker, spawn, theirs))

    def _make(self, spawn: fleet.Spawn) -> tuple[WorkerProcess, socket.socket]:
        """Makes a worker's ledger and channel. Returns the supervisor's handle, and the worker's end of the channel."""
        workers = self.generations[spawn.generation].spec.workers
        geometry = ledger_sizes.worker_geometry(workers, self.max_payload)
        if self._told_size != geometry.size:
            self._told_size = geometry.size
            _log.info("%s", ledger_sizes.told_at_start(workers, geometry, self._directory))
        ledger_file.make(self._directory, geometry, Identity(spawn.serial, spawn.slot, spawn.generation))
        ours, theirs = pair()
        try:
            worker = WorkerProcess(spawn.serial, spawn.slot, spawn.generation, self._directory, ours, self)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return worker, theirs

    async def _fork(self, worker: WorkerProcess, spawn: fleet.Spawn, theirs: socket.socket) -> None:
        worker_spec = WorkerSpec(
            spawn.slot, spawn.serial, spawn.generation, self._serial, self.supervisor_place, spawn.joins
        )
        with theirs:
            try:
                if (template := self.generations.template(spawn.generation)) is None:
                    raise TemplateFailed(["its template is dead, and there is no new one yet"])
                queues = self.generations.queues
                for queue in [queue for queue in queues if queue.is_shut()]:
                    queue.renew()
                spawned = await template.spawn(worker_spec, theirs, queues)
            except Exception as error:  # whatever the error is, the slot must be filled again
                del self.workers[spawn.serial]
                worker.discard()
                ledger_file.remove(self._directory, spawn.serial)
                self._spawn_failed(spawn, str(error))
                return
        with contextlib.suppress(OSError):
            processes.raise_oom_score(spawned.pid, 100)
        worker.started(spawned.pid, spawned.pidfd)
        self.access.tell(worker)
        known = self.fleet.members.get(worker.serial)
        if known is not None and known.state is WorkerState.LEAVING:
            worker.send(messages.LeaveOrder(self.fleet.stopping))

    def _spawn_failed(self, spawn: fleet.Spawn, why: str) -> None:
        _log.error("worker %d cannot start: %s", spawn.slot, why)
        self.generations.note_failure(spawn.generation, why)
        asyncio.get_running_loop().call_soon(self.handle, fleet.Died(spawn.serial))

    # -- events of a worker's process ----------------------------------------------------------

    def connection_opened(self, worker: WorkerProcess, sock: socket.socket) -> None:
        self._fd_store.keep(Key(worker.serial, worker.epoch), sock)

    def message_received(self, worker: WorkerProcess, message: messages.FromWorker) -> None:
        match message:
            case messages.WorkerReady():
                _log.info("%s serves, generation %d", worker, worker.generation)
                worker.left = False
                self.handle(fleet.Ready(worker.serial))
            case messages.StartFailed(why):
                worker.last_words = why
            case messages.RecycleRequest(why):
                self.recycle([worker], why)
            case messages.CancelResult() | messages.StacksResult():
                self.inquiry.heard(worker, message)
            case messages.GroupLeft():
                known = self.fleet.members.get(worker.serial)
                if known is not None and known.state is WorkerState.STARTING:
                    _log.info("%s is up and drained, generation %d", worker, worker.generation)
                worker.left = True
                self.handle(fleet.Left(worker.serial))

    # -- replacing workers in order ------------------------------------------------------------

    def follow_max_payload(self, size: int) -> None:
        """Replaces all workers if the server's limit has grown: their ledgers' receive buffers are too small for it."""
        if size > self.max_payload:
            _log.warning("the server's max_payload grew to %d: workers are replaced", size)
            self.max_payload = size
            self.recycle(list(self.workers.values()), "the server's max_payload grew")

    def recycle(self, workers: Iterable[WorkerProcess], why: str) -> None:
        for worker in workers:
            known = self.fleet.members.get(worker.serial)
            if known is not None and not known.to_recycle and known.state is not WorkerState.LEAVING:
                _log.warning("%s is replaced: %s", worker, why)
                self.counters.replaced += 1
                self.handle(fleet.Recycle(worker.serial))
                self._events.worker_replaced(worker, why)

    # -- deaths --------------------------------------------------------------------------------

    def worker_died(self, worker: WorkerProcess) -> None:
        """Handles the end of a worker's process: counts it, and has it recovered and replaced."""
        known = self.fleet.members.get(worker.serial)
        how = "unknown" if worker.result is None else worker.result.text
        if how == signal.SIGKILL.name and (killed := self._memory_kills.explanation()):
            how = f"{how}; {killed}"
        clean = worker.result is not None and worker.result.code == 0
        if clean and known is not None and known.state is WorkerState.LEAVING:
            _log.info("%s has left", worker)
        else:
            self.counters.deaths += 1
            _log.error("%s died: %s", worker, how)
            if known is not None and known.state is WorkerState.STARTING:
                why = worker.last_words or f"worker {worker.slot} died before it served: {how}"
                self.generations.note_failure(worker.generation, why)
        del self.workers[worker.serial]
        with self.guard("counting what a dead worker did"):
            self.counters.absorb(worker.ledger)
        with self.guard("answering for a dead worker"):
            self._events.worker_died(worker, how)
        # the slot is filled again whatever the ledger says, but after the first answers: routers wait for those
        asyncio.get_running_loop().call_soon(self._tell_of_death, worker.serial)

    def _tell_of_death(self, serial: int) -> None:
        self.handle(fleet.Died(serial))
        self._retire_generations()

    def _template_died(self, generation: Generation, how: str) -> None:
        generation.template = None
        self._events.template_died(generation.spec.generation, how)
        self._retire_generations()

    def known_processes(self) -> tuple[set[int], set[int]]:
        """Returns the pids that the supervisor itself reaps, and the marks (`stray_processes`) of what is to live.

        Those of the workers, and of each generation that has one: it may need what its imports have started.
        """
        workers = self.workers.values()
        numbers = {*self.generations, *(worker.generation for worker in workers)}
        marks = {*self.workers, *(GENERATION_MARK + number for number in numbers)}
        return {worker.pid for worker in workers} | TemplateProcess.living, marks

    def _retire_generations(self) -> None:
        self.generations.retire({m.generation for m in self.workers.values()} | {self.fleet.generation})
