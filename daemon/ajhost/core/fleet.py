"""The fleet: which worker processes there should be, as a state machine without I/O.

Events go in with the time (`handle(event, now)`), commands come out, and the supervisor executes them. The policy: each
slot has one serving worker of the current generation; a replacement serves before the old worker leaves; a failure of
one slot never stops another.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from ajhost.core.backoff import RespawnBackoff
from ajhost.core.timings import HUNG_REPLACED_AFTER


class WorkerState(Enum):
    """Where a worker stands for the fleet. One whose process is gone has no state: it is no member any more."""

    #: Ordered, forked, or connecting.
    STARTING = "starting"
    #: It has subscribed.
    SERVING = "serving"
    #: Its heartbeat is stale. The supervisor keeps its deadlines and takes over its connection.
    HUNG = "hung"
    #: Told to leave the queue group, finish what it holds, and end.
    LEAVING = "leaving"
    #: As SERVING, but out of the queue group: an operator drains the host.
    DRAINED = "drained"


_STATES = tuple(WorkerState)
IN_PLACE = (WorkerState.SERVING, WorkerState.DRAINED)
"""States of a worker that is all that its slot needs."""


def state_number(state: WorkerState) -> int:
    """The number by which a worker's ledger tells its state; 0 is none."""
    return _STATES.index(state) + 1


def state_of(number: int) -> WorkerState | None:
    """The state of that number; None for none, or a stray write."""
    return _STATES[number - 1] if 0 < number <= len(_STATES) else None


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """There are to be `count` slots of `generation`: at a start, a reload, or when a dead template was replaced."""

    generation: int
    count: int


@dataclass(frozen=True)
class _OfWorker:
    serial: int


class Ready(_OfWorker):
    """A worker has subscribed."""


class Left(_OfWorker):
    """A worker is out of the queue group, or never was in it, as it was told."""


class Died(_OfWorker):
    """A worker's process is gone, or could not be started."""


class Hung(_OfWorker):
    """A worker hangs."""


class HangEnded(_OfWorker):
    """A hanging worker runs again."""


class Recycle(_OfWorker):
    """A worker is to be replaced in order: a thread is stuck, or it has served its tasks, or uses too much memory.

    Ignored before the worker has served: its replacement would be in the same state, and so would every next one.
    """


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator takes the host out of the queue group. It stays up, new workers as well, until `Resume`."""


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
    """Start a worker. The serial is the fleet's name for it; `joins`: whether it is to be in the queue group."""

    serial: int
    slot: int
    generation: int
    joins: bool = True


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell a worker to leave the queue group, finish and end. `stop`: the whole host stops."""

    serial: int
    stop: bool


@dataclass(frozen=True, slots=True)
class SetMembership:
    """Tell a worker to be in the queue group, or out of it: it reports `Ready` or `Left`."""

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
"""`(state, event) -> state`; None: gone. Of what a worker or the liveness monitor reports, what is not here changes
nothing: it comes late, from a worker that is told to leave meanwhile, say. What the fleet commands must be here."""


_REPLACEABLE = (*IN_PLACE, WorkerState.STARTING)
"""States of a worker that leaves when another is in its place."""


class IllegalTransition(AssertionError):
    """A command in a state in which the table has no step for it."""

    def __init__(self, state: WorkerState, event: type[Event | Command]) -> None:
        super().__init__(f"{event.__name__} in the state {state.name}")


@dataclass(slots=True)
class Member:
    """What the fleet knows of a worker process."""

    serial: int
    slot: int
    generation: int
    state: WorkerState = WorkerState.STARTING
    ready_at: float | None = None
    hung_at: float | None = None
    to_recycle: bool = False
    joins: bool = True
    """Whether it was last told to be in the queue group."""
    outside: bool = False
    """Whether it is known to be out of the queue group."""
    runs: bool = True
    """While it leaves: whether any task of its own is running. What only waits with it is for others to run."""


@dataclass(slots=True)
class Fleet:
    """The state machine. `next_serial` makes names that are unique over all starts."""

    next_serial: int
    members: dict[int, Member] = field(default_factory=dict)
    generation: int = 0
    count: int = 0
    draining: bool = False
    stopping: bool = False
    _backoffs: dict[int, RespawnBackoff] = field(default_factory=lambda: defaultdict(RespawnBackoff))

    def handle(self, event: Event, now: float) -> list[Command]:
        """Takes an event at `now` (s); returns the commands that follow from it."""
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
        """How many workers are in the queue group."""
        return sum(m.state is WorkerState.SERVING for m in self.members.values())

    def in_place(self, generation: int | None = None) -> int:
        """How many workers are what their slots need, of a generation or of all."""
        return sum(m.state in IN_PLACE and generation in (None, m.generation) for m in self.members.values())

    def complete(self) -> bool:
        """Whether every slot has a worker of the current generation that is what it needs."""
        current = [m for m in self.members.values() if m.generation == self.generation]
        return {m.slot for m in current if m.state in IN_PLACE} >= set(range(self.count))

    def uncovered(self) -> bool:
        """Whether no worker is in the queue group, though the host is to be."""
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
        if isinstance(event, HangEnded):  # nobody knows what it heard and said while it hung
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
                # a slot that still serves is renewed one at a time, an empty one at once
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
        """Tells each worker that was told the contrary last; one that leaves is out of the group for good."""
        joins, commands = not self.draining, list[Command]()
        for member in self.members.values():
            if member.joins is not joins and member.state is not WorkerState.LEAVING:
                member.joins = joins
                member.outside = member.outside and not joins
                commands.append(SetMembership(member.serial, joins))
        return commands

    def _is_crowded(self, serving: list[Member], here: list[Member]) -> bool:
        """Whether a slot has a worker too many already, and the one that serves is only to be recycled.

        Those that leave finish their tasks, which may take long: one that is recycled over and over, for its memory,
        would fill the machine with them. A new generation does not wait for those of the last. One that leaves and runs
        nothing does not count: it waits for what others are to run for it, and they may be worn as well (`max_tasks`).
        """
        recycled = all(m.generation == self.generation for m in serving)
        counted = [m for m in here if m.runs or m.state is not WorkerState.LEAVING]
        return recycled and len(counted) > len(serving)

    def _is_current(self, member: Member, now: float) -> bool:
        """Whether a worker is, or is about to be, what its slot needs."""
        if member.generation != self.generation or member.to_recycle or member.state is WorkerState.LEAVING:
            return False
        if member.state is WorkerState.HUNG and member.hung_at is not None:
            return now - member.hung_at < HUNG_REPLACED_AFTER and self.in_place() > 0
        return True

    def take_serial(self) -> int:
        """A serial for one more ledger."""
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
        """:raises IllegalTransition: it is told already: a mistake of ours."""
        after = TRANSITIONS.get((member.state, Leave))
        if after is None:
            raise IllegalTransition(member.state, Leave)
        member.state = after
        return Leave(member.serial, stop)
