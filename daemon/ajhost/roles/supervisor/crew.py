"""The crew: carries out what the fleet decides. Templates, forks, and what workers say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from ajhost.adapters import ledger_file, processes
from ajhost.adapters.channel import pair
from ajhost.core.figures import Tally
from ajhost.core.fleet import Command, Died, Event, Fleet, Leave, Served, Spawn, Standing, Target, Worn
from ajhost.core.layout import Identity, Word, geometry_for
from ajhost.roles.plan import GenerationPlan, WorkerOrder
from ajhost.roles.shared_queue.lane import Lane
from ajhost.roles.supervisor.member import Member
from ajhost.roles.supervisor.stored import Key
from ajhost.roles.template.client import Template, TemplateFailed

_log = logging.getLogger("ajhost.supervisor")


class Crew:
    """Members and templates. `serial`: of the supervisor's ledger; theirs follow. The callbacks:

    `kept(key, sock)`: a worker's new connection; `ended(member, how)`: a worker is dead, called before its
    replacement is forked; `bereft(generation, how)`: its template is dead; `changed()`: something worth a look has
    happened.
    """

    def __init__(
        self,
        runtime: Path,
        serial: int,
        lanes: list[Lane],
        *,
        kept: Callable[[Key, socket.socket], None],
        ended: Callable[[Member, str], None],
        bereft: Callable[[int, str], None],
        changed: Callable[[], None],
    ) -> None:
        self.fleet = Fleet(serial + 1)
        self.tally = Tally()
        self.members: dict[int, Member] = {}
        self.templates: dict[int, Template] = {}
        self.plans: dict[int, GenerationPlan] = {}
        self.max_payload = 0
        self.failed: dict[int, list[str]] = {}
        """For each generation: why members of it died before they served."""
        self._directory, self._serial = runtime / "ledger", serial
        self._lanes = lanes
        self._kept, self._ended, self._bereft, self._changed = kept, ended, bereft, changed
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn_task(self, work: Coroutine[None, None, None]) -> None:
        """Runs something beside everything else, and keeps hold of it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("unexpected: %s", error, exc_info=error)
        self._changed()

    def pids(self) -> set[int]:
        """Every process that somebody here waits for."""
        return {m.pid for m in self.members.values()} | {t.pid for t in self.templates.values()}

    @property
    def busy(self) -> bool:
        """Whether forks or burials are under way."""
        return bool(self._tasks)

    def handle(self, event: Event) -> None:
        """Tells the fleet, and obeys it."""
        for command in self.fleet.handle(event, time.monotonic()):
            self._obey(command)
        self._changed()

    def change(self, generation: int, template: Template) -> None:
        """From now on every slot is the generation's, whose workers this template forks."""
        self.templates[generation] = template
        self.handle(Target(generation, self.plans[generation].workers.count))
        # not earlier: one that died while the host waited for its server is missed by nobody before this
        template.on_death(lambda how: self._on_template_death(generation, how))

    def _on_template_death(self, generation: int, how: str) -> None:
        self.templates.pop(generation, None)
        self._bereft(generation, how)

    def _obey(self, command: Command) -> None:
        match command:
            case Spawn():
                self._spawn(command)
            case Leave(serial, stop):
                if member := self.members.get(serial):
                    member.tell({"leave": "stop" if stop else "replaced"})

    def _spawn(self, spawn: Spawn) -> None:
        workers = self.plans[spawn.generation].workers
        geometry = geometry_for(workers.concurrency + workers.backlog, self.max_payload)
        try:
            ledger_file.make(self._directory, geometry, Identity(spawn.serial, spawn.slot, spawn.generation))
        except OSError as error:
            self._unborn(spawn, f"{self._directory}: {error.strerror}")
            return
        ours, theirs = pair()
        member = self.members[spawn.serial] = Member(
            spawn.serial, spawn.slot, spawn.generation, self._directory, ours,
            told=self._on_told, kept=self._on_kept, ended=self._on_ended,
        )  # fmt: skip
        self.spawn_task(self._fork(member, spawn, theirs))

    async def _fork(self, member: Member, spawn: Spawn, theirs: socket.socket) -> None:
        order = WorkerOrder(spawn.slot, spawn.serial, spawn.generation, self._serial)
        with theirs:
            try:
                template = self.templates.get(spawn.generation)
                if template is None:
                    raise TemplateFailed(["its template is dead, and there is no new one yet"])
                spawned = await template.spawn(order, theirs, self._lanes)
            except (TemplateFailed, OSError) as error:
                del self.members[spawn.serial]
                member.discard()
                ledger_file.remove(self._directory, spawn.serial)
                self._unborn(spawn, str(error))
                return
        with contextlib.suppress(OSError):
            processes.raise_oom_score(spawned.pid, 100)
        member.started(spawned.pid, spawned.pidfd)
        known = self.fleet.members.get(member.serial)
        if known is not None and known.standing is Standing.LEAVING:
            member.tell({"leave": "stop" if self.fleet.stopping else "replaced"})

    def _on_kept(self, member: Member, sock: socket.socket) -> None:
        self._kept(Key(member.serial, member.epoch), sock)

    def _unborn(self, spawn: Spawn, why: str) -> None:
        _log.error("worker %d cannot start: %s", spawn.slot, why)
        self.failed.setdefault(spawn.generation, []).append(why)
        asyncio.get_running_loop().call_soon(self.handle, Died(spawn.serial))

    def _on_told(self, member: Member, message: dict[str, object]) -> None:
        if "ready" in message:
            pid = member.ledger.words[Word.PID]  # its template may not have told us yet
            _log.info("worker %d (pid %d) serves, generation %d", member.slot, pid, member.generation)
            self.handle(Served(member.serial))
        elif "retire" in message:
            self.wear(member, str(message["retire"]))
        elif "left" in message:
            member.left = True
            self._changed()

    def wear(self, member: Member, why: str) -> None:
        """The member shall be replaced in order."""
        known = self.fleet.members.get(member.serial)
        if known is not None and not known.worn and known.standing is not Standing.LEAVING:
            _log.warning("worker %d (pid %d) is replaced: %s", member.slot, member.pid, why)
            self.handle(Worn(member.serial))

    def _on_ended(self, member: Member) -> None:
        known = self.fleet.members.get(member.serial)
        how = "unknown" if member.result is None else member.result.text
        clean = member.result is not None and member.result.code == 0
        if clean and known is not None and known.standing is Standing.LEAVING:
            _log.info("worker %d (pid %d) has left", member.slot, member.pid)
        else:
            self.tally.deaths += 1
            _log.error("worker %d (pid %d) died: %s", member.slot, member.pid, how)
            if known is not None and known.standing is Standing.STARTING:
                why = f"worker {member.slot} died before it served: {how}"
                self.failed.setdefault(member.generation, []).append(why)
        del self.members[member.serial]
        self.tally.bury(member.ledger)
        self._ended(member, how)
        self.handle(Died(member.serial))
        self._retire_templates()

    def _retire_templates(self) -> None:
        """A generation of which nobody lives, and which is not the present one, needs no template."""
        alive = {m.generation for m in self.members.values()} | {self.fleet.generation}
        for generation in [g for g in self.templates if g not in alive]:
            self.templates.pop(generation).close()
            del self.plans[generation]

    def close_templates(self) -> None:
        """Ends every template."""
        for template in self.templates.values():
            template.close()
        self.templates.clear()
