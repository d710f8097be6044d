"""The fleet: decides when a slot gets another worker, since its last one died, hangs, is recycled or of an old
generation: slots that serve one after the other, an empty one at once. Decides who joins the queue group in a drain.
`backoff.py` has the pauses after deaths; `roles/supervisor/reload.py` undoes a reload whose workers die.

A state machine without I/O: `handle(event, now)` takes an event and returns commands, which the supervisor executes.
Each slot has one serving worker of the current generation; a replacement serves before the old worker leaves; a failure
of one slot never stops another.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from ajhost.core.backoff import RespawnBackoff
from ajhost.core.connection_table import IllegalTransition
from ajhost.core.timings import HUNG_REPLACED_AFTER


class WorkerState(Enum):
    """The state of a worker as the fleet knows it. A worker whose process has ended is no member and has no state."""

    #: The worker is ordered, forked, or connecting.
    STARTING = "starting"
    #: The worker has subscribed.
    SERVING = "serving"
    #: The worker hangs. The supervisor keeps its deadlines and takes over its connection.
    HUNG = "hung"
    #: The worker was told to leave the queue group, finish what it holds, and end.
    LEAVING = "leaving"
    #: As SERVING, but the worker is out of the queue group, since an operator drains the host.
    DRAINED = "drained"


_STATES = tuple(WorkerState)
IN_PLACE = (WorkerState.SERVING, WorkerState.DRAINED)
"""States in which a worker needs no replacement."""


def state_number(state: WorkerState) -> int:
    """Returns the number of a state for the word `WORKER_STATE`; 0 would be no state."""
    return _STATES.index(state) + 1


def state_of(number: int) -> WorkerState | None:
    """Returns the state of a number; None for 0 or a stray write."""
    return _STATES[number - 1] if 0 < number <= len(_STATES) else None


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """`count` slots of `generation` are wanted: at a start, a reload, or when a dead template was replaced."""

    generation: int
    count: int


@dataclass(frozen=True)
class _OfWorker:
    serial: int


class Ready(_OfWorker):
    """A worker has subscribed."""


class Left(_OfWorker):
    """A worker that was told so has left the queue group, or never joined it."""


class Died(_OfWorker):
    """A worker's process has ended, or could not be started."""


class Hung(_OfWorker):
    """The supervisor found that a worker hangs."""


class HangEnded(_OfWorker):
    """A hanging worker runs again."""


class Recycle(_OfWorker):
    """A worker is to be replaced in order: a thread is stuck, `max_tasks` is reached, or it uses too much memory.

    Ignored before the worker has served: its replacement would need one as well, and so on without end.
    """


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator takes the host out of the queue group until `Resume`. Workers stay up, and new ones do not join."""


@dataclass(frozen=True, slots=True)
class Resume:
    """An operator ends the drain."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The host stops: every worker leaves, none is replaced."""


Event = Scale | Ready | Left | Died | Hung | HangEnded | Recycle | Tick | Drain | Resume | Stop


# -- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker with a new serial. `joins`: whether it is to join the queue group."""

    serial: int
    slot: int
    generation: int
    joins: bool = True


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell a worker to leave the queue group, finish its tasks and end. `stop`: the whole host stops."""

    serial: int
    stop: bool


@dataclass(frozen=True, slots=True)
class SetMembership:
    """Tell a worker to join the queue group, or to leave it. It reports `Ready` or `Left`."""

    serial: int
    joins: bool


Command = Spawn | Leave | SetMembership


# -- the life of a worker ---------------------------------------------------------------------------

_S = WorkerState

TRANSITIONS: dict[tuple[WorkerState, type[Event | Command]], WorkerState | None] = {
    (_S.STARTING, Ready): _S.SERVING,
    (_S.STARTING, Left): _S.DRAINED,
    (_S.SERVING, Left): _S.DRAINED,
    (_S.DRAINED, Ready): _S.SERVING,
    (_S.SERVING, Hung): _S.HUNG,
    (_S.DRAINED, Hung): _S.HUNG,
    (_S.HUNG, HangEnded): _S.SERVING,
    **{(state, Leave): _S.LEAVING for state in (_S.STARTING, _S.SERVING, _S.DRAINED, _S.HUNG)},
    **{(state, Died): None for state in WorkerState},
}
"""`(state, event) -> state`; None: gone. A report of a worker or of the liveness monitor that is not here changes
nothing: it is late, for instance from a worker that was told to leave meanwhile. A command must have a row here.
"""


_REPLACEABLE = (*IN_PLACE, WorkerState.STARTING)
"""States in which a worker is told to leave once its replacement serves."""


@dataclass(slots=True)
class Member:
    """A worker process, as the fleet knows it."""

    serial: int
    slot: int
    generation: int
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    hung_at: float | None = None
    to_recycle: bool = False
    joins: bool = True
    """Whether the last order was to be in the queue group."""
    outside: bool = False
    """Whether the worker is known to be out of the queue group."""
    runs: bool = True
    """While the worker leaves: whether it runs a task. Other workers run what only waits in its ledger."""


@dataclass(slots=True)
class Fleet:
    """The state machine. `next_serial`: the next number that no process of any start has had."""

    next_serial: int
    members: dict[int, Member] = field(default_factory=dict)
    generation: int = 0
    count: int = 0
    draining: bool = False
    stopping: bool = False
    _backoffs: dict[int, RespawnBackoff] = field(default_factory=lambda: defaultdict(RespawnBackoff))

    def handle(self, event: Event, now: float) -> list[Command]:
        """Takes an event at `now` (s). Returns the commands that follow from it."""
        match event:
            case Scale(generation, count):
                self.generation, self.count = generation, count
                self._backoffs.clear()
            case Ready(serial) | Left(serial) | Hung(serial) | HangEnded(serial):
                if member := self.members.get(serial):
                    self._on_report(member, event, now)
            case Died(serial):
                member = self.members.pop(serial, None)
                if member and member.state is not WorkerState.LEAVING:
                    self._backoffs[member.slot].worker_died(member.ready_at, now)
            case Recycle(serial):
                if (member := self.members.get(serial)) and member.state is not WorkerState.STARTING:
                    member.to_recycle = True
            case Drain():
                self.draining = True
            case Resume():
                self.draining = False
            case Stop():
                self.stopping = True
            case Tick():
                pass
        return self._stop() if self.stopping else self._reconcile(now)

    def serving(self) -> int:
        """Returns how many workers are in the queue group."""
        return sum(m.state is WorkerState.SERVING for m in self.members.values())

    def in_place(self, generation: int | None = None) -> int:
        """Returns how many workers, of one generation or of all, need no replacement by their state."""
        return sum(m.state in IN_PLACE and generation in (None, m.generation) for m in self.members.values())

    def complete(self) -> bool:
        """Whether every slot has a worker of the current generation that serves, or is drained."""
        current = [m for m in self.members.values() if m.generation == self.generation]
        return {m.slot for m in current if m.state in IN_PLACE} >= set(range(self.count))

    def uncovered(self) -> bool:
        """Whether no worker is in the queue group although the host does not drain."""
        return not self.draining and not self.serving()

    def withdrawn(self) -> bool:
        """Whether the host drains, and no worker is in the queue group any more."""
        return self.draining and all(m.outside for m in self.members.values())

    @staticmethod
    def _on_report(member: Member, event: Ready | Left | Hung | HangEnded, now: float) -> None:
        if isinstance(event, Left):
            member.outside = member.state is WorkerState.LEAVING or not member.joins
        after = TRANSITIONS.get((member.state, type(event)))
        if after is None:
            return
        member.state = after
        member.hung_at = now if after is WorkerState.HUNG else None
        if after in IN_PLACE and member.ready_at is None:
            member.ready_at = now
        if isinstance(event, HangEnded):  # its membership is unknown now: a drain gives its order again
            member.joins, member.outside = True, False

    def _stop(self) -> list[Command]:
        return [
            self._tell_to_leave(member, stop=True)
            for member in self.members.values()
            if member.state is not WorkerState.LEAVING
        ]

    def _reconcile(self, now: float) -> list[Command]:
        commands = self._set_memberships()
        starting = any(m.state is WorkerState.STARTING for m in self.members.values())
        for slot in range(self.count):
            here = [m for m in self.members.values() if m.slot == slot]
            fit = [m for m in here if self._is_current(m, now)]
            new = next((m for m in fit if m.state in IN_PLACE), None)
            if new is not None:
                leaving = (m for m in here if m is not new and m.state in _REPLACEABLE)
                commands.extend(self._tell_to_leave(old) for old in leaving)
            elif not fit and self._backoffs[slot].is_over(now):
                # slots that still serve are renewed one at a time, an empty slot at once
                serving = [m for m in here if m.state in IN_PLACE]
                if serving and (starting or self._is_crowded(serving, here)):
                    continue
                starting = True
                commands.append(self._spawn(slot))
        if self.complete():
            commands += [
                self._tell_to_leave(m)
                for m in list(self.members.values())
                if m.slot >= self.count and m.state in _REPLACEABLE
            ]
        return commands

    def _set_memberships(self) -> list[Command]:
        """Orders each worker whose last order was the contrary, but none that leaves: it never rejoins."""
        joins, commands = not self.draining, list[Command]()
        for member in self.members.values():
            if member.joins is not joins and member.state is not WorkerState.LEAVING:
                member.joins = joins
                member.outside = member.outside and not joins
                commands.append(SetMembership(member.serial, joins))
        return commands

    def _is_crowded(self, serving: list[Member], here: list[Member]) -> bool:
        """Whether a replacement has to wait: a worker of the slot still leaves, and the serving one is only recycled.

        A leaving worker finishes its tasks, which may take long. A slot that is recycled over and over for its memory
        would fill the machine with leaving workers. A new generation does not wait for those of the last one. A leaving
        worker that runs nothing does not count: it waits until others have run its queued requests, and those may have
        to be recycled as well (`max_tasks`).
        """
        recycled = all(m.generation == self.generation for m in serving)
        counted = [m for m in here if m.runs or m.state is not WorkerState.LEAVING]
        return recycled and len(counted) > len(serving)

    def _is_current(self, member: Member, now: float) -> bool:
        """Whether a worker needs no replacement now: it serves with the current code, or is about to."""
        if member.generation != self.generation or member.to_recycle or member.state is WorkerState.LEAVING:
            return False
        if member.state is WorkerState.HUNG and member.hung_at is not None:
            return now - member.hung_at < HUNG_REPLACED_AFTER and self.in_place() > 0
        return True

    def take_serial(self) -> int:
        """Returns the serial for one more ledger."""
        serial = self.next_serial
        self.next_serial += 1
        return serial

    def _spawn(self, slot: int) -> Spawn:
        serial = self.take_serial()
        joins = not self.draining
        self.members[serial] = Member(serial, slot, self.generation, joins=joins, outside=not joins)
        return Spawn(serial, slot, self.generation, joins)

    @staticmethod
    def _tell_to_leave(member: Member, *, stop: bool = False) -> Leave:
        """:raises IllegalTransition: the worker was told already: a programming error."""
        after = TRANSITIONS.get((member.state, Leave))
        if after is None:
            raise IllegalTransition(member.state, Leave)
        member.state = after
        return Leave(member.serial, stop)
