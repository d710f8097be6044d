"""The fleet as a state machine: which process is started and which is told to leave, for every turn of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ajhost.core.fleet import (
    Command,
    Died,
    Drain,
    Event,
    Fleet,
    HangEnded,
    Hung,
    Leave,
    Left,
    Ready,
    Recycle,
    Resume,
    Scale,
    SetMembership,
    Spawn,
    Stop,
    Tick,
    WorkerState,
)
from ajhost.core.timings import HUNG_REPLACED_AFTER, RESPAWN_FIRST, RESPAWN_LONGEST, STABLE_AFTER


class FleetDriver:
    """A fleet and its time. Serials begin at 1."""

    def __init__(self, count: int = 0) -> None:
        self.fleet = Fleet(1)
        self.now = 100.0
        if count:
            self.did(Scale(1, count))
            for serial in list(self.fleet.members):
                self.did(Ready(serial))

    def did(self, event: Event, after: float = 0.0) -> list[Command]:
        self.now += after
        return self.fleet.handle(event, self.now)


def test_the_first_start_fills_every_slot_at_once() -> None:
    driver = FleetDriver()
    assert driver.did(Scale(1, 3)) == [Spawn(1, 0, 1), Spawn(2, 1, 1), Spawn(3, 2, 1)]
    assert driver.did(Tick(), 5) == []
    assert not driver.fleet.complete()
    for serial in (1, 2, 3):
        assert driver.did(Ready(serial)) == []
    assert driver.fleet.complete()
    assert driver.fleet.serving() == 3


def test_serials_go_on_from_where_an_earlier_start_ended() -> None:
    assert Fleet(1 << 40).handle(Scale(1, 1), 0.0) == [Spawn(1 << 40, 0, 1)]


def test_a_settled_member_that_dies_is_replaced_at_once_every_time() -> None:
    driver = FleetDriver(1)
    for serial in range(1, 6):
        assert driver.did(Died(serial), STABLE_AFTER) == [Spawn(serial + 1, 0, 1)]
        driver.did(Ready(serial + 1))


@pytest.mark.parametrize("serves", [False, True], ids=["before it serves", "soon after it serves"])
def test_a_crash_loop_is_replaced_at_once_first_and_then_ever_slower_up_to_a_limit(serves: bool) -> None:
    driver = FleetDriver()
    driver.did(Scale(1, 1))
    delay, serial, waited = 0.0, 1, []
    for _ in range(12):
        if serves:
            driver.did(Ready(serial))
        commands = driver.did(Died(serial), STABLE_AFTER / 2)
        if delay:
            assert commands == []
            assert driver.did(Tick(), delay * 0.9) == [], "too early"
            commands = driver.did(Tick(), delay * 0.11)
        serial += 1
        assert commands == [Spawn(serial, 0, 1)]
        waited.append(delay)
        delay = min(max(RESPAWN_FIRST, delay * 2), RESPAWN_LONGEST)
    assert waited[:4] == [0.0, RESPAWN_FIRST, RESPAWN_FIRST * 2, RESPAWN_FIRST * 4]
    assert waited[-1] == RESPAWN_LONGEST


def test_a_crash_loop_of_days_is_only_slow() -> None:
    driver = FleetDriver()
    commands = driver.did(Scale(1, 1))
    for _ in range(3000):
        (spawn,) = commands
        assert isinstance(spawn, Spawn)
        commands = driver.did(Died(spawn.serial)) or driver.did(Tick(), RESPAWN_LONGEST)


def test_a_member_that_settles_ends_the_waiting() -> None:
    driver = FleetDriver()
    driver.did(Scale(1, 1))
    driver.did(Died(1))
    driver.did(Died(2))
    driver.did(Tick(), RESPAWN_FIRST)
    driver.did(Ready(3))
    assert driver.did(Died(3), STABLE_AFTER) == [Spawn(4, 0, 1)]
    assert driver.did(Died(4)) == [Spawn(5, 0, 1)]


def test_one_slots_crash_loop_stops_no_other() -> None:
    driver = FleetDriver(2)
    driver.did(Died(1))
    driver.did(Died(3))
    assert driver.did(Died(2)) == [Spawn(4, 1, 1)]


def test_a_new_target_ends_the_waiting_of_every_slot() -> None:
    driver = FleetDriver()
    driver.did(Scale(1, 1))
    driver.did(Died(1))
    assert driver.did(Died(2)) == []
    assert driver.did(Scale(2, 1)) == [Spawn(3, 0, 2)]


def test_a_replacement_serves_before_the_old_one_leaves() -> None:
    driver = FleetDriver(1)
    assert driver.did(Recycle(1)) == [Spawn(2, 0, 1)]
    assert driver.did(Tick(), 60) == []
    assert driver.did(Ready(2)) == [Leave(1, stop=False)]
    assert driver.did(Died(1)) == []


def test_a_worn_member_stays_while_its_replacements_die() -> None:
    driver = FleetDriver(1)
    driver.did(Recycle(1))
    assert driver.did(Died(2)) == [Spawn(3, 0, 1)]
    assert driver.did(Died(3)) == []
    assert driver.did(Tick(), RESPAWN_FIRST) == [Spawn(4, 0, 1)]
    assert driver.fleet.serving() == 1


def test_a_member_that_starts_is_not_replaced_for_being_worn() -> None:
    driver = FleetDriver()
    driver.did(Scale(1, 1))
    assert [driver.did(Recycle(1), 1.0) for _ in range(5)] == [[]] * 5
    driver.did(Ready(1))
    assert driver.did(Recycle(1)) == [Spawn(2, 0, 1)]


def test_a_reload_renews_slot_by_slot() -> None:
    driver = FleetDriver(3)
    assert driver.did(Scale(2, 3)) == [Spawn(4, 0, 2)]
    assert driver.did(Tick(), 60) == []
    assert driver.did(Ready(4)) == [Leave(1, stop=False), Spawn(5, 1, 2)]
    assert driver.did(Died(1)) == []
    assert driver.did(Ready(5)) == [Leave(2, stop=False), Spawn(6, 2, 2)]
    assert not driver.fleet.complete()
    assert driver.did(Ready(6)) == [Leave(3, stop=False)]
    assert driver.fleet.complete()


def test_a_slot_that_becomes_empty_during_a_reload_does_not_wait_for_its_turn() -> None:
    driver = FleetDriver(3)
    driver.did(Scale(2, 3))
    assert driver.did(Died(3), STABLE_AFTER) == [Spawn(5, 2, 2)]


def test_a_reload_whose_code_dies_leaves_the_old_members_serving() -> None:
    driver = FleetDriver(2)
    commands = driver.did(Scale(2, 2))
    for _ in range(50):
        assert all(isinstance(c, Spawn) for c in commands)
        serial = max(driver.fleet.members)
        commands = driver.did(Died(serial)) if serial > 2 else driver.did(Tick(), 1)
    assert driver.fleet.serving() == 2


def test_a_dead_templates_successor_replaces_nobody_that_serves_its_generation() -> None:
    driver = FleetDriver(2)
    assert driver.did(Scale(1, 2)) == []
    assert driver.did(Died(1)) == [Spawn(3, 0, 1)]


def test_more_slots_are_filled_and_nobody_else_is_touched() -> None:
    driver = FleetDriver(1)
    assert driver.did(Scale(1, 3)) == [Spawn(2, 1, 1), Spawn(3, 2, 1)]


def test_surplus_slots_leave_at_once_when_the_others_serve() -> None:
    driver = FleetDriver(3)
    assert driver.did(Scale(1, 1)) == [Leave(2, stop=False), Leave(3, stop=False)]


def test_surplus_slots_serve_on_until_a_reloads_slots_are_complete() -> None:
    driver = FleetDriver(3)
    assert driver.did(Scale(2, 1)) == [Spawn(4, 0, 2)]
    assert driver.did(Died(1), STABLE_AFTER) == []
    assert set(driver.did(Ready(4))) == {Leave(2, stop=False), Leave(3, stop=False)}


def test_a_hung_member_has_patience_while_others_serve() -> None:
    driver = FleetDriver(2)
    assert driver.did(Hung(1)) == []
    assert driver.did(Tick(), HUNG_REPLACED_AFTER * 0.9) == []
    assert driver.did(Tick(), HUNG_REPLACED_AFTER * 0.2) == [Spawn(3, 0, 1)]
    assert driver.did(Ready(3)) == [], "it would not hear that it shall leave"


def test_a_hung_member_is_replaced_at_once_when_nobody_else_serves() -> None:
    driver = FleetDriver(1)
    assert driver.did(Hung(1)) == [Spawn(2, 0, 1)]


@pytest.mark.parametrize("wakes", ["before the replacement serves", "after it"])
def test_of_a_hung_member_that_wakes_and_its_replacement_one_stays(wakes: str) -> None:
    driver = FleetDriver(1)
    driver.did(Hung(1))
    commands = driver.did(HangEnded(1)) if wakes.startswith("before") else []
    commands += driver.did(Ready(2))
    commands += driver.did(HangEnded(1))
    assert len(commands) == 1
    assert isinstance(commands[0], Leave)
    assert driver.fleet.serving() == 1


def test_a_hung_member_that_is_killed_is_replaced() -> None:
    driver = FleetDriver(2)
    driver.did(Hung(1))
    assert driver.did(Died(1), STABLE_AFTER) == [Spawn(3, 0, 1)]


def test_a_stop_tells_everybody_to_leave_once_and_replaces_nobody() -> None:
    driver = FleetDriver(2)
    driver.did(Recycle(1))
    commands = driver.did(Stop())
    assert commands == [Leave(1, stop=True), Leave(2, stop=True), Leave(3, stop=True)]
    for event in (Tick(), Died(1), Ready(3), Scale(2, 4), Stop(), Recycle(2)):
        assert driver.did(event, 5) == []


@pytest.mark.parametrize(
    "event", [Ready(9), Left(9), Died(9), Hung(9), HangEnded(9), Recycle(9), HangEnded(1), Ready(1)]
)
def test_an_event_of_a_stranger_or_out_of_place_changes_nothing(event: Event) -> None:
    driver = FleetDriver(1)
    assert driver.did(event) == []
    assert driver.fleet.complete()


class AnyTurnOfEvents(RuleBasedStateMachine):
    """Obeys a fleet, whatever happens to the processes."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(1)
        self.now = 0.0
        self.generation = 0
        self.starting: dict[int, Spawn] = {}
        self.serving: dict[int, Spawn] = {}
        self.hung: dict[int, Spawn] = {}
        self.leaving: dict[int, Spawn] = {}
        self.drained: dict[int, Spawn] = {}
        self.members: dict[int, bool] = {}
        """Serial -> whether it was last told to be in the queue group."""
        self.stopped = False

    def tell(self, event: Event, after: float = 0.0) -> None:
        self.now += after
        for command in self.fleet.handle(event, self.now):
            match command:
                case Spawn(serial, slot, generation, joins):
                    assert joins is not self.fleet.draining
                    assert not self.stopped
                    assert slot < self.fleet.count
                    assert generation == self.generation
                    twin = [s for s in self.starting.values() if (s.slot, s.generation) == (slot, generation)]
                    assert not twin, "two starts for one slot"
                    self.starting[serial] = command
                    self.members[serial] = joins
                case SetMembership(serial, joins):
                    assert serial not in self.leaving
                    assert joins is not self.fleet.draining
                    self.members[serial] = joins
                case Leave(serial, stop):
                    assert stop == self.stopped
                    spawn = self.starting.pop(serial, None) or self.serving.pop(serial, None)
                    spawn = spawn or self.hung.pop(serial, None) or self.drained.pop(serial, None)
                    assert spawn is not None, "told twice, or unknown"
                    if not stop and spawn.slot < self.fleet.count:
                        heirs = [s for s in self.in_place.values() if s.slot == spawn.slot]
                        assert [s for s in heirs if s.generation == self.generation], "the slot is empty now"
                    self.leaving[serial] = spawn

    @rule(count=st.integers(1, 3), reload=st.booleans())
    def target(self, count: int, reload: bool) -> None:
        self.generation += reload or not self.generation
        self.tell(Scale(self.generation, count))

    @rule(after=st.sampled_from([0.0, 0.05, 0.5, 3.0, 20.0]))
    def time(self, after: float) -> None:
        self.tell(Tick(), after)

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        serial = data.draw(st.sampled_from(sorted(self.starting)))
        self.report(serial, self.starting)

    def report(self, serial: int, held: dict[int, Spawn]) -> None:
        """A worker does as it was last told, and says so."""
        joins, spawn = self.members[serial], held.pop(serial)
        (self.serving if joins else self.drained)[serial] = spawn
        self.tell(Ready(serial) if joins else Left(serial))

    @property
    def in_place(self) -> dict[int, Spawn]:
        return self.serving | self.drained

    @precondition(lambda self: self.in_place)
    @rule(data=st.data())
    def obey(self, data: st.DataObject) -> None:
        serial = data.draw(st.sampled_from(sorted(self.in_place)))
        self.report(serial, self.serving if serial in self.serving else self.drained)

    @rule(on=st.booleans())
    def drain(self, on: bool) -> None:
        self.tell(Drain() if on else Resume())

    @precondition(lambda self: self.in_place)
    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        serial = data.draw(st.sampled_from(sorted(self.in_place)))
        self.hung[serial] = (self.serving if serial in self.serving else self.drained).pop(serial)
        self.tell(Hung(serial))

    @precondition(lambda self: self.hung)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        serial = data.draw(st.sampled_from(sorted(self.hung)))
        self.serving[serial] = self.hung.pop(serial)
        self.tell(HangEnded(serial))

    @precondition(lambda self: self.fleet.members)
    @rule(data=st.data())
    def wear(self, data: st.DataObject) -> None:
        self.tell(Recycle(data.draw(st.sampled_from(sorted(self.fleet.members)))))

    @precondition(lambda self: self.fleet.members)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        serial = data.draw(st.sampled_from(sorted(self.fleet.members)))
        for held in (self.starting, self.serving, self.drained, self.hung, self.leaving):
            held.pop(serial, None)
        self.tell(Died(serial))

    @precondition(lambda self: self.generation)
    @rule(chance=st.integers(0, 9))
    def stop(self, chance: int) -> None:
        if not chance:
            self.stopped = True
            self.tell(Stop())

    @invariant()
    def the_fleet_knows_what_there_is(self) -> None:
        kinds = {WorkerState.STARTING: self.starting, WorkerState.SERVING: self.serving}
        kinds |= {WorkerState.HUNG: self.hung, WorkerState.LEAVING: self.leaving}
        kinds |= {WorkerState.DRAINED: self.drained}
        assert {s: m.state for s, m in self.fleet.members.items()} == {
            serial: standing for standing, held in kinds.items() for serial in held
        }

    def teardown(self) -> None:
        """From wherever it stands: if members serve from now on and the hung ones end, every slot is served."""
        if self.stopped or not self.generation:
            return
        for serial in list(self.hung):
            del self.hung[serial]
            self.tell(Died(serial))
        for _ in range(8 * self.fleet.count):
            self.tell(Tick(), RESPAWN_LONGEST)
            for serial in list(self.starting):
                if serial in self.starting:
                    self.report(serial, self.starting)
            for serial in sorted(self.in_place):
                if serial in self.in_place:
                    self.report(serial, self.serving if serial in self.serving else self.drained)
            for serial in list(self.leaving):
                del self.leaving[serial]
                self.tell(Died(serial))
        assert self.fleet.complete()
        place = self.drained if self.fleet.draining else self.serving
        assert sorted(s.slot for s in place.values()) == list(range(self.fleet.count))
        assert self.fleet.withdrawn() is self.fleet.draining
        assert self.fleet.uncovered() is False
        assert not self.starting


TestAnyTurnOfEvents = AnyTurnOfEvents.TestCase
TestAnyTurnOfEvents.settings = settings(max_examples=120, stateful_step_count=30)


def test_a_slot_whose_recycled_worker_takes_long_to_leave_gets_no_third_process() -> None:
    driver = FleetDriver(1)
    assert driver.did(Recycle(1)) == [Spawn(2, 0, 1)]
    assert driver.did(Ready(2)) == [Leave(1, stop=False)]
    # the next one is as large: it serves on until the first has left
    assert driver.did(Recycle(2)) == []
    assert driver.did(Tick(), 60) == []
    assert driver.did(Died(1)) == [Spawn(3, 0, 1)]


def test_a_slot_that_lost_its_worker_is_filled_though_another_one_still_leaves() -> None:
    driver = FleetDriver(1)
    driver.did(Recycle(1))
    driver.did(Ready(2))
    assert driver.did(Died(2), STABLE_AFTER) == [Spawn(3, 0, 1)]


def test_a_new_generation_does_not_wait_for_those_that_leave() -> None:
    driver = FleetDriver(1)
    driver.did(Recycle(1))
    driver.did(Ready(2))
    assert driver.did(Scale(2, 1)) == [Spawn(3, 0, 2)]


def test_a_drain_takes_every_worker_out_of_the_group_and_a_resume_brings_it_back() -> None:
    driver = FleetDriver(2)
    assert driver.did(Drain()) == [SetMembership(1, False), SetMembership(2, False)]
    assert not driver.fleet.uncovered(), "nobody covers for a host that is to be out"
    driver.did(Left(1))
    assert (driver.fleet.serving(), driver.fleet.withdrawn()) == (1, False)
    driver.did(Left(2))
    assert (driver.fleet.serving(), driver.fleet.withdrawn(), driver.fleet.complete()) == (0, True, True)
    assert driver.did(Drain()) == []
    assert driver.did(Resume()) == [SetMembership(1, True), SetMembership(2, True)]
    assert driver.fleet.uncovered()
    driver.did(Ready(1))
    driver.did(Ready(2))
    assert (driver.fleet.serving(), driver.fleet.withdrawn()) == (2, False)


def test_workers_made_while_the_host_is_drained_are_drained() -> None:
    driver = FleetDriver(1)
    driver.did(Drain())
    driver.did(Left(1))
    assert driver.did(Scale(2, 1)) == [Spawn(2, 0, 2, joins=False)]
    assert driver.did(Left(2)) == [Leave(1, stop=False)]
    assert driver.did(Died(2), STABLE_AFTER) == [Spawn(3, 0, 2, joins=False)]
    # one that starts is told as well
    assert driver.did(Resume()) == [SetMembership(3, True)]
    assert driver.did(Ready(3)) == []
    assert driver.fleet.serving() == 1


def test_a_worker_that_hung_while_the_host_was_drained_is_told_again() -> None:
    driver = FleetDriver(2)
    driver.did(Hung(1))
    assert driver.did(Drain()) == [SetMembership(1, False), SetMembership(2, False)]
    driver.did(Left(2))
    assert not driver.fleet.withdrawn()
    # it may have joined again before it read the order
    assert driver.did(HangEnded(1)) == [SetMembership(1, False)]
    driver.did(Left(1))
    assert driver.fleet.withdrawn()
