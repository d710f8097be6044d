"""The life of a connection: every sequence of faults that a good server follows ends subscribed, within its time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.core.backoff import BACKOFF
from ajhost.core.connection_machine import ConnectionMachine, Patience
from ajhost.core.connection_table import (
    LOCKS_OUT,
    REASON_TEXTS,
    TRANSITIONS,
    Barred,
    Close,
    Command,
    ConnectionFailed,
    Drop,
    Event,
    IllegalTransition,
    Leave,
    LogIn,
    Lost,
    Move,
    Open,
    Ping,
    Reconfigured,
    Refused,
    Resolve,
    Resolved,
    Scout,
    Scouted,
    Sealed,
    Start,
    Subscribed,
    Ticked,
    Told,
    Unresolved,
)
from ajhost.core.login_gate import WORDS, LoginGate
from ajhost.core.server_pool import Address, Server, ServerPool
from ajhost.ledger.connection_status import ConnectionState, Reason

S = ConnectionState
NAMED = Server("nats.example", 4222)
FIRST, SECOND = Server("10.0.0.1", 4222), Server("10.0.0.2", 4222)
BOUND = 6.0
"""Seconds from a good server to a subscription, whatever was before."""


def failed(reason: Reason) -> ConnectionFailed:
    return (Refused if reason in LOCKS_OUT else Lost)(reason, reason.name)


class Driver:
    """Obeys a machine in a time of its own. `world(server)`: what comes of an attempt, None for nothing at all."""

    def __init__(self, *servers: Server, words: list[int] | None = None, seed: int = 1) -> None:
        self.words = [0] * WORDS if words is None else words
        rng = Random(seed)
        pool = ServerPool(servers, rng)
        self.machine = ConnectionMachine(pool, LoginGate(self.words), Patience(), rng)
        self.now = 1000.0
        self.next_tick = self.now
        self.commands: list[tuple[float, Command]] = []
        self.bad: dict[tuple[str, int], Reason | None] = {}
        self.hears = True
        self.position = 0

    def reason(self, server: Server) -> Reason | None:
        return self.bad.get(server.place)

    def good(self, server: Server) -> bool:
        return server.place not in self.bad

    def tell(self, event: Event) -> None:
        for command in self.machine.handle(event, self.now):
            self.obey(command)

    def obey(self, command: Command) -> None:
        self.commands.append((self.now, command))
        match command:
            case Resolve(server):
                if self.reason(server) is Reason.DNS:
                    self.tell(Unresolved("no such name"))
                elif self.good(server) or self.reason(server) is not None:
                    self.tell(Resolved((Address("10.0.0.9", server.port),)))
            case Open(server, addresses):
                if self.good(server) or self.reason(server) in LOCKS_OUT:
                    self.tell(Sealed(addresses[0]))
                elif (reason := self.reason(server)) is not None:
                    self.tell(failed(reason))
            case LogIn(server):
                if self.good(server):
                    self.position += 1
                    self.tell(Subscribed())
                elif (reason := self.reason(server)) is not None:
                    self.tell(failed(reason))
            case Ping():
                self.position += self.hears and self.good(self.machine.server)
            case Move(reason):
                self.tell(Lost(reason, "moved"))
            case Scout(server):
                self.tell(Scouted(server, self.good(server)))
            case Drop():
                pass

    def run(self, seconds: float, until: Iterable[ConnectionState] = ()) -> float:
        """Lets time pass; for how long it did."""
        begin = self.now
        while self.now < begin + seconds and self.machine.state not in until:
            self.now += max(self.machine.wakes_in(self.now), 0.001)
            self.tell(Ticked(self.position, True))
        return self.now - begin

    def attempts(self, since: float = 0.0) -> list[Server]:
        return [c.server for at, c in self.commands if isinstance(c, Open) and at >= since]


def started(*servers: Server) -> Driver:
    driver = Driver(*servers)
    driver.tell(Start())
    return driver


def test_a_good_server_is_subscribed_to_at_once() -> None:
    driver = started(NAMED)
    assert driver.machine.state is S.SUBSCRIBED
    kinds = [type(command) for _, command in driver.commands]
    assert kinds == [Resolve, Open, LogIn]


def test_an_address_is_never_resolved() -> None:
    driver = started(Server("127.0.0.1"), Server("::1"))
    driver.tell(Lost(Reason.ENDED, ""))
    driver.run(5, [S.SUBSCRIBED])
    assert not [c for _, c in driver.commands if isinstance(c, Resolve)]


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("event", [Resolved(()), Sealed(Address("1.1.1.1", 1)), Subscribed(), Start()])
def test_an_event_that_cannot_come_is_an_error(state: ConnectionState, event: Event) -> None:
    driver = Driver(NAMED)
    driver.machine.state = state
    if (state, type(event)) in TRANSITIONS:
        driver.machine.handle(event, 1.0)
    else:
        with pytest.raises(IllegalTransition):
            driver.machine.handle(event, 1.0)


@pytest.mark.parametrize("state", list(S))
def test_a_mistake_of_ours_costs_one_pause(state: ConnectionState) -> None:
    driver = Driver(NAMED)
    driver.machine.state = state
    for command in driver.machine.begin_anew(driver.now):
        driver.obey(command)
    assert driver.run(5, [S.SUBSCRIBED]) < 3


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(S)
    assert set(TRANSITIONS.values()) == set(S)


def test_every_reason_has_a_text_and_a_pause() -> None:
    assert REASON_TEXTS.keys() == BACKOFF.keys() == set(Reason)


@pytest.mark.parametrize("reason", [r for r in Reason if r not in (Reason.NONE, Reason.RECONFIGURED)])
def test_pauses_begin_short_and_grow_to_the_limit_of_the_reason(reason: Reason) -> None:
    driver = started(FIRST)
    driver.bad[FIRST.place] = None if reason is Reason.SILENT else reason
    driver.tell(failed(reason))
    first = driver.now
    begin = len(driver.commands)
    driver.run(120)
    moments = [at for at, c in driver.commands[begin:] if isinstance(c, Open)]
    slow = reason in LOCKS_OUT
    assert 0.04 < moments[0] - first < (0.7 if slow else 0.11)
    gaps = [b - a for a, b in itertools.pairwise(moments[-8:])]
    assert all((2.4 if slow else 0.9) < gap < (5.6 if slow else 5.5) for gap in gaps), gaps
    assert (driver.machine.state is S.LOCKED_OUT) == slow


@settings(max_examples=100)
@given(
    faults=st.lists(
        st.tuples(
            st.sampled_from([0, 1]),
            st.sampled_from([*[r for r in Reason if r is not Reason.NONE], None]),
            st.floats(0.0, 20.0),
        ),
        max_size=8,
    ),
    seed=st.integers(0, 1000),
    named=st.booleans(),
)
def test_whatever_was_before_a_good_server_is_subscribed_to_in_time(
    faults: list[tuple[int, Reason | None, float]], seed: int, named: bool
) -> None:
    servers = (NAMED if named else FIRST, SECOND)
    driver = Driver(*servers, seed=seed)
    driver.tell(Start())
    for which, reason, seconds in faults:
        server = servers[which]
        # no attempt fails for other settings: they end a connection, and whoever tries again meets the next fault
        driver.bad[server.place] = Reason.ENDED if reason is Reason.RECONFIGURED else reason
        if driver.machine.state is S.SUBSCRIBED and driver.machine.server == server and reason is not None:
            driver.tell(failed(reason))
        driver.run(seconds)
    stands = driver.machine.state is S.SUBSCRIBED and driver.good(driver.machine.server)
    driver.bad.clear()
    if not stands:
        driver.tell(failed(Reason.ENDED)) if driver.machine.connected else None
        assert driver.run(BOUND + 1, [S.SUBSCRIBED]) <= BOUND


@pytest.mark.parametrize("count", [1, 10, 200])
def test_a_configured_server_is_found_however_many_black_holes_were_told_of(count: int) -> None:
    for seed in range(20):
        driver = Driver(FIRST, seed=seed)
        driver.tell(Start())
        for _ in range(30):
            holes = [f"192.0.2.{n % 250}:{4000 + n}" for n in range(count)]
            driver.tell(Told(tuple(holes), False))
            driver.bad = {(hole.split(":")[0], int(hole.split(":")[1])): None for hole in holes}
        driver.bad[FIRST.place] = Reason.REFUSED
        driver.tell(failed(Reason.ENDED))
        driver.run(3 + seed)
        del driver.bad[FIRST.place]
        assert driver.run(10, [S.SUBSCRIBED]) < 5


def test_a_configured_server_is_tried_before_discovered_ones() -> None:
    driver = started(FIRST)
    driver.tell(Told(("10.0.0.7:1", "10.0.0.8:1"), False))
    driver.bad[FIRST.place] = Reason.REFUSED
    begin = driver.now
    driver.tell(failed(Reason.ENDED))
    driver.run(5, [S.SUBSCRIBED])
    assert driver.attempts(begin)[0] == FIRST
    assert driver.machine.server.host in ("10.0.0.7", "10.0.0.8")


def test_discovered_servers_are_bounded_in_number_and_age() -> None:
    pool = ServerPool([FIRST], Random(1))
    pool.discover([f"10.1.0.{n}:4222" for n in range(200)], FIRST, 0.0)
    assert len(pool.servers) == 33
    pool.discover(["10.2.0.1:4222"], FIRST, 1.0)
    assert [s.host for s in pool.servers] == ["10.0.0.1", "10.2.0.1"]
    pool.next(1000.0)
    assert pool.servers == (FIRST,)


def test_discovery_can_be_switched_off() -> None:
    pool = ServerPool([FIRST], Random(1), discover=False)
    pool.discover(["10.2.0.1:4222"], FIRST, 1.0)
    assert pool.servers == (FIRST,)


@pytest.mark.parametrize(
    "url",
    [
        "",
        ":",
        "x",
        "a b:1",
        "x:0",
        "x:99999",
        "x:-1",
        "::1:4222",
        "x\n:1",
        "[]:1",
        "0.0.0.0:4222",
        "[::]:4222",
    ],
)
def test_what_is_no_address_is_not_discovered(url: str) -> None:
    pool = ServerPool([FIRST], Random(1))
    pool.discover([url], FIRST, 1.0)
    assert pool.servers == (FIRST,)


def test_a_discovered_server_is_reached_as_the_one_that_told_of_it() -> None:
    known = Server("nats.example", 4222, tls=True, user="u", password="p")
    pool = ServerPool([known], Random(1))
    pool.discover(["10.2.0.1:4222", "[fe80::1]:4222", "other.example:4222"], known, 1.0)
    one, two, three = pool.servers[1:]
    assert (one.tls, one.user, one.certificate_name) == (True, "u", "nats.example")
    assert (two.host, two.certificate_name) == ("fe80::1", "nats.example")
    assert three.certificate_name == "other.example"
    assert "p" not in repr(one).replace("password", "").split("'")


def test_the_last_good_address_is_tried_first_and_the_families_in_turns() -> None:
    pool = ServerPool([NAMED], Random(1))
    four, six = [Address(f"10.0.0.{n}", 1) for n in range(3)], [Address(f"fe80::{n}", 1) for n in range(2)]
    assert pool.resolved(NAMED, (*six, *four)) == (six[0], four[0], six[1], four[1], four[2])
    pool.reached(NAMED, four[2])
    assert pool.resolved(NAMED, (*six, *four))[0] == four[2]


def test_a_name_that_cannot_be_resolved_any_more_keeps_its_addresses() -> None:
    driver = started(NAMED)
    driver.obey = lambda command: driver.commands.append((driver.now, command))  # type: ignore[method-assign]
    driver.tell(failed(Reason.ENDED))
    driver.run(0.2, [S.RESOLVING])
    driver.tell(Unresolved("the resolver is dead"))
    assert driver.machine.state is S.CONNECTING
    assert driver.commands[-1][1] == Open(NAMED, (Address("10.0.0.9", 4222),))


def test_a_silent_server_is_pinged_then_silent_then_left_for_the_other() -> None:
    driver = started(FIRST, SECOND)
    server = driver.machine.server
    driver.run(60)
    pings = sum(isinstance(c, Ping) for _, c in driver.commands)
    assert 20 < pings < 31
    driver.bad[server.place] = None
    since = driver.now
    driver.run(10, [S.SILENT])
    assert 0.4 < driver.now - since < 3.6
    driver.run(10, [S.WAITING, S.SUBSCRIBED])
    assert 2.9 < driver.now - since < 6
    driver.run(10, [S.SUBSCRIBED])
    assert driver.now - since < 6.5
    assert driver.machine.server != server


def test_bytes_end_the_silence() -> None:
    driver = started(FIRST)
    driver.bad[FIRST.place] = None
    driver.run(10, [S.SILENT])
    del driver.bad[FIRST.place]
    driver.position += 1
    driver.run(1, [S.SUBSCRIBED])
    assert driver.machine.state is S.SUBSCRIBED
    assert driver.machine.reconnects == 0


def test_a_process_that_did_not_run_has_not_heard_a_silence() -> None:
    driver = started(FIRST)
    driver.run(1)
    driver.now += 30
    driver.tell(Ticked(driver.position, True))
    assert driver.machine.state is S.SUBSCRIBED


def test_who_does_not_read_has_not_heard_a_silence_either() -> None:
    driver = started(FIRST)
    for _ in range(100):
        driver.now += 0.25
        driver.tell(Ticked(driver.position, False))
    assert driver.machine.state is S.SUBSCRIBED


def test_a_server_that_lets_us_in_and_throws_us_out_is_not_tried_faster_and_faster() -> None:
    driver = started(FIRST)
    begin = driver.now
    while driver.now < begin + 60:
        driver.tell(failed(Reason.ENDED))
        driver.run(10, [S.SUBSCRIBED])
        driver.now += 0.1
    assert driver.machine.reconnects < 60
    assert driver.machine.reconnects_by[Reason.ENDED] == driver.machine.reconnects


def test_a_reconnect_counts_for_what_ended_the_connection_and_not_for_what_attempts_met() -> None:
    driver = started(FIRST)
    driver.tell(failed(Reason.SILENT))
    driver.bad[FIRST.place] = Reason.REFUSED
    driver.run(5)
    del driver.bad[FIRST.place]
    driver.run(10, [S.SUBSCRIBED])
    counts = driver.machine.reconnects_by
    assert (counts[Reason.SILENT], sum(counts)) == (1, 1)


def test_who_leaves_is_never_subscribed_again() -> None:
    driver = started(FIRST)
    driver.tell(Leave())
    assert driver.machine.state is S.LEAVING
    driver.tell(failed(Reason.ENDED))
    driver.run(5, [S.LEAVING, S.SUBSCRIBED])
    assert driver.machine.state is S.LEAVING


def test_a_missing_permission_keeps_the_connection_and_is_tried_again() -> None:
    driver = started(FIRST)
    driver.tell(Barred("subscribe to x"))
    assert driver.machine.state is S.LOCKED_OUT
    assert driver.machine.connected
    begin, before = driver.now, len(driver.commands)
    driver.run(10, [S.SUBSCRIBED])
    kinds = [type(command) for _, command in driver.commands[before:] if not isinstance(command, Ping)]
    assert kinds == [Move, Drop, Open, LogIn]
    assert driver.now - begin < 6


@pytest.mark.parametrize("reason", [r for r in Reason if r is not Reason.NONE])
def test_a_connection_without_a_permission_may_end_for_any_reason(reason: Reason) -> None:
    driver = started(FIRST)
    driver.tell(Barred("subscribe to x"))
    driver.tell(failed(reason))
    assert not driver.machine.connected
    driver.run(6, [S.SUBSCRIBED])
    assert driver.machine.state is S.SUBSCRIBED


def test_a_lame_duck_is_left_for_a_server_that_lets_us_in() -> None:
    driver = started(FIRST, SECOND)
    server = driver.machine.server
    other = SECOND if server == FIRST else FIRST
    driver.bad[other.place] = Reason.LIMIT
    driver.tell(Told(None, True))
    driver.tell(Told(None, True))
    driver.run(10)
    assert driver.machine.server == server
    assert driver.machine.state is S.SUBSCRIBED
    del driver.bad[other.place]
    driver.tell(Told(None, True))
    driver.run(5)
    assert (driver.machine.server, driver.machine.state) == (other, S.SUBSCRIBED)


def test_a_lame_duck_without_another_server_is_stayed_with() -> None:
    driver = started(FIRST)
    driver.tell(Told((), True))
    driver.run(20)
    assert driver.machine.state is S.SUBSCRIBED
    driver.bad[FIRST.place] = Reason.REFUSED
    driver.tell(failed(Reason.ENDED))
    driver.run(10)
    driver.bad.clear()
    assert driver.run(10, [S.SUBSCRIBED]) < 3


def test_the_processes_of_a_host_leave_a_lame_duck_one_after_the_other() -> None:
    words = [0] * WORDS
    drivers = [Driver(FIRST, SECOND, words=words, seed=n) for n in range(16)]
    for driver in drivers:
        driver.tell(Start())
        driver.tell(Told(None, True))
    moves: list[float] = []
    while drivers[0].now < 1010:
        for driver in drivers:
            before = len(driver.commands)
            driver.now += 0.05
            driver.tell(Ticked(driver.position, True))
            moves += [at for at, c in driver.commands[before:] if isinstance(c, Move)]
    assert len(moves) == 16
    assert min(b - a for a, b in itertools.pairwise(moves)) > 0.04


def test_other_servers_are_taken_at_once() -> None:
    driver = started(FIRST)
    driver.tell(Reconfigured((SECOND,)))
    driver.run(1, [S.SUBSCRIBED])
    assert driver.machine.server == SECOND
    driver.bad[SECOND.place] = Reason.AUTHORIZATION
    driver.tell(failed(Reason.AUTHORIZATION))
    driver.run(30)
    driver.tell(Reconfigured((FIRST,)))
    assert driver.run(5, [S.SUBSCRIBED]) < 0.6
    driver.tell(Close())
    assert driver.machine.state is S.CLOSED


def test_a_connection_that_leaves_or_is_well_takes_other_servers_when_it_is_lost() -> None:
    driver = started(FIRST)
    driver.run(1, [S.SUBSCRIBED])
    driver.tell(Reconfigured((SECOND,), move=False))
    driver.tell(Leave())
    driver.tell(Reconfigured((SECOND,), move=True))
    driver.run(1)
    assert driver.machine.server == FIRST
    driver.tell(Lost(Reason.ENDED, ""))
    driver.run(1, [S.LEAVING])
    assert driver.machine.server == SECOND


class LockedOutHost:
    """Many processes that are locked out together."""

    def __init__(self, count: int) -> None:
        words = [0] * WORDS
        self.drivers = [Driver(FIRST, words=words, seed=n) for n in range(count)]
        for driver in self.drivers:
            driver.bad[FIRST.place] = Reason.AUTHORIZATION
        self.now = 1000.0
        self.begun: set[int] = set()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        due = {n: self.now + driver.machine.wakes_in(self.now) for n, driver in enumerate(self.drivers)}
        while self.now < end:
            number = min(due, key=due.__getitem__)
            self.now = due[number]
            driver = self.drivers[number]
            driver.now = self.now
            driver.tell(Ticked(driver.position, True))
            due[number] = self.now + driver.machine.wakes_in(self.now)

    def log_ins(self, since: float, until: float) -> int:
        return sum(isinstance(c, LogIn) and since <= at < until for d in self.drivers for at, c in d.commands)


@pytest.mark.parametrize("locked_out_for", [3.0, 60.0])
def test_a_host_that_is_locked_out_knocks_seldom_and_is_back_at_once(locked_out_for: float) -> None:
    host = LockedOutHost(64)
    for number, driver in enumerate(host.drivers):
        driver.now = 1000.0 + number * 0.002
        driver.tell(Start())
    host.now = 1000.2
    host.run(locked_out_for)
    for second in range(int(locked_out_for)):
        knocks = host.log_ins(1000 + second, 1001 + second)
        assert knocks < (10 if second >= 15 else 50), (second, knocks)
    for driver in host.drivers:
        driver.bad.clear()
    host.run(6)
    assert {d.machine.state for d in host.drivers} == {S.SUBSCRIBED}


def test_a_process_whose_credentials_are_good_gets_in_past_a_locked_out_host() -> None:
    host = LockedOutHost(64)
    for driver in host.drivers:
        driver.tell(Start())
    host.run(30)
    newcomer = Driver(FIRST, words=host.drivers[0].words, seed=99)
    newcomer.now = host.now
    newcomer.tell(Start())
    host.drivers.append(newcomer)
    host.run(1)
    assert newcomer.machine.state is S.SUBSCRIBED
