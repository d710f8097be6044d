"""The fleet: which worker processes there should be, as a state machine without I/O.

Events go in with the time (`handle(event, now)`), commands come out; the supervisor only carries them out. The
policy in one sentence: each slot has one serving member of the current generation, a replacement serves before the
old one leaves, and a failure of one slot never stops another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

SETTLED_AFTER = 1.0
"""Seconds of service after which a death says nothing about the code: the member is replaced at once."""
FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0
HUNG_PATIENCE = 2.0
"""Seconds a member may hang before its slot gets another one, while others serve."""


class Standing(Enum):
    """Where a member stands for the fleet."""

    STARTING = "starting"
    SERVING = "serving"
    HUNG = "hung"
    LEAVING = "leaving"


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """There shall be `count` slots of `generation` (start, reload, a dead template's successor)."""

    generation: int
    count: int


@dataclass(frozen=True, slots=True)
class Served:
    """A member has subscribed."""

    serial: int


@dataclass(frozen=True, slots=True)
class Died:
    """A member's process is gone, or it could not be started at all."""

    serial: int


@dataclass(frozen=True, slots=True)
class Stalled:
    """A member's heartbeat is stale."""

    serial: int


@dataclass(frozen=True, slots=True)
class Woke:
    """A stalled member beats again."""

    serial: int


@dataclass(frozen=True, slots=True)
class Worn:
    """A member should be replaced in order: a stuck thread, its count of tasks, its memory.

    Heard only once it has served: a successor of one that starts would be as worn, and so would every next one.
    """

    serial: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The host stops: everybody leaves, nobody is replaced."""


Event = Target | Served | Died | Stalled | Woke | Worn | Tick | Stop


# -- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a member. The serial is the fleet's name for it."""

    serial: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell a member to leave the group, finish and end. `stop`: the whole host stops."""

    serial: int
    stop: bool


Command = Spawn | Leave


@dataclass(slots=True)
class Member:
    """What the fleet knows of a process."""

    serial: int
    slot: int
    generation: int
    standing: Standing = Standing.STARTING
    served_at: float | None = None
    hung_at: float | None = None
    worn: bool = False


@dataclass(slots=True)
class _Slot:
    """When its next member may be started, and how long the one after that waits if this one fails too."""

    delay: float = 0.0
    not_before: float = 0.0


@dataclass(slots=True)
class Fleet:
    """The state machine. `next_serial` makes names that are unique over all starts."""

    next_serial: int
    members: dict[int, Member] = field(default_factory=dict)
    generation: int = 0
    count: int = 0
    stopping: bool = False
    _slots: dict[int, _Slot] = field(default_factory=dict)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Takes an event and says what is to be done."""
        match event:
            case Target(generation, count):
                self.generation, self.count = generation, count
                for slot in self._slots.values():
                    slot.delay, slot.not_before = 0.0, 0.0
            case Served(serial):
                if (member := self.members.get(serial)) and member.standing is Standing.STARTING:
                    member.standing, member.served_at = Standing.SERVING, now
            case Died(serial):
                if member := self.members.pop(serial, None):
                    self._mourn(member, now)
            case Stalled(serial):
                if (member := self.members.get(serial)) and member.standing is Standing.SERVING:
                    member.standing, member.hung_at = Standing.HUNG, now
            case Woke(serial):
                if (member := self.members.get(serial)) and member.standing is Standing.HUNG:
                    member.standing, member.hung_at = Standing.SERVING, None
            case Worn(serial):
                if (member := self.members.get(serial)) and member.standing is not Standing.STARTING:
                    member.worn = True
            case Stop():
                self.stopping = True
            case Tick():
                pass
        return self._stop() if self.stopping else self._reconcile(now)

    def serving(self) -> int:
        """How many members serve."""
        return sum(m.standing is Standing.SERVING for m in self.members.values())

    def complete(self) -> bool:
        """Whether every slot has a serving member of the current generation."""
        current = [m for m in self.members.values() if m.generation == self.generation]
        return {m.slot for m in current if m.standing is Standing.SERVING} >= set(range(self.count))

    def _mourn(self, member: Member, now: float) -> None:
        if member.standing is Standing.LEAVING:
            return
        slot = self._slots.setdefault(member.slot, _Slot())
        if member.served_at is not None and now - member.served_at >= SETTLED_AFTER:
            slot.delay, slot.not_before = 0.0, 0.0
            return
        # the first one is replaced at once: it may have been anybody's kill
        slot.not_before = now + slot.delay
        slot.delay = min(max(FIRST_DELAY, slot.delay * 2), LONGEST_DELAY)

    def _stop(self) -> list[Command]:
        commands: list[Command] = []
        for member in self.members.values():
            if member.standing is not Standing.LEAVING:
                member.standing = Standing.LEAVING
                commands.append(Leave(member.serial, stop=True))
        return commands

    def _reconcile(self, now: float) -> list[Command]:
        commands: list[Command] = []
        starting = any(m.standing is Standing.STARTING for m in self.members.values())
        for slot in range(self.count):
            here = [m for m in self.members.values() if m.slot == slot]
            fit = [m for m in here if self._fit(m, now)]
            new = next((m for m in fit if m.standing is Standing.SERVING), None)
            if new is not None:
                leaving = (
                    m for m in here if m is not new and m.standing in (Standing.SERVING, Standing.STARTING)
                )
                commands.extend(self._dismiss(old) for old in leaving)
            elif not fit and now >= self._slots.setdefault(slot, _Slot()).not_before:
                # a slot that still serves is renewed one at a time, an empty one at once
                if any(m.standing is Standing.SERVING for m in here) and starting:
                    continue
                starting = True
                commands.append(self._spawn(slot))
        if self.complete():
            commands += [
                self._dismiss(m)
                for m in list(self.members.values())
                if m.slot >= self.count and m.standing in (Standing.SERVING, Standing.STARTING)
            ]
        return commands

    def _fit(self, member: Member, now: float) -> bool:
        """Whether a member is what its slot should have (or is about to be)."""
        if member.generation != self.generation or member.worn or member.standing is Standing.LEAVING:
            return False
        if member.standing is Standing.HUNG and member.hung_at is not None:
            return now - member.hung_at < HUNG_PATIENCE and self.serving() > 0
        return True

    def take_serial(self) -> int:
        """A name for one more ledger."""
        serial = self.next_serial
        self.next_serial += 1
        return serial

    def _spawn(self, slot: int) -> Spawn:
        serial = self.take_serial()
        self.members[serial] = Member(serial, slot, self.generation)
        return Spawn(serial, slot, self.generation)

    @staticmethod
    def _dismiss(member: Member) -> Leave:
        member.standing = Standing.LEAVING
        return Leave(member.serial, stop=False)
