"""A request that waits is refused by its owner while a consumer is about to start it: exactly one of the two has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.ledger.layout import Geometry
from ajhost.ledger.queue_token import Token, token_places
from ajhost.ledger.states import Claim
from ajhost.protocol.frames import scan
from ajhost.roles.shared_queue import claim
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Consumer, Origin
from ajhost.roles.supervisor.recovery.remains import Remains
from tests.support.host_parts import FAR, HostParts, QueueOwner, frame
from tests.support.killed_child import Act, Stopped
from tests.support.memory_ledger import ledger_in_memory

REPLY = b"R.1"


class Owner(QueueOwner):
    """A process that has a request in the shared queue."""

    def __init__(self, parts: HostParts) -> None:
        super().__init__(parts)
        self.index = self.enqueue(REPLY)
        self.token = Token(self.ledger.serial, self.index, self.ledger.state(self.index)[0], FAR)

    def refuses(self) -> bool:
        """Whether it answers the request itself, as for an operator who cancels it."""
        return self.producer.take_back(self.index) and self.ledger.refuse(self.index, REPLY)

    def confirmed(self) -> None:
        """The server has its answer."""
        self.ledger.sent([self.index])
        self.ledger.release(self.index)

    def as_child(self) -> Act:
        """The same in a process of its own."""

        def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
            watch(lambda: bytes(self.ledger.view))
            if self.refuses():
                tell(b"refused")

        return act


def consumer(parts: HostParts, serial: int) -> Act:
    """A process that pulls one request and runs it, if it is its own by then."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        ledger = LockedLedger(parts.directory, serial)
        pulled = []

        def start(data: bytes, claimed: ClaimedRequest) -> None:
            pulled.append(claimed)
            reply, index = scan(data).messages[0][5], ledger.start_pulled(1)

            def enter(origin: Origin) -> bool:
                return ledger.start(index, 1, reply, b"i", b"t", 0, 1, origin)

            watch(lambda: bytes(ledger.view))
            if claimed.begin(enter):
                tell(b"ran")
            else:
                ledger.release(index)

        def resume(claimed: ClaimedRequest) -> None:
            raise AssertionError("it has enqueued nothing")

        loop = asyncio.new_event_loop()
        pulls = Consumer(ledger, parts.directory, parts.queues, loop, lambda queue: not pulled, start, resume)
        pulls.begin()
        pulls.end()

    return act


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_consumer_stopped_before_any_line_leaves_a_request_that_was_refused_meanwhile(
    parts: HostParts, confirmed: bool
) -> None:
    outcomes, stop_at, over = set(), 1, False
    while not over:
        owner = Owner(parts)
        stopped = Stopped(consumer(parts, parts.new_serial()), stop_at)
        over = stopped.ended
        refused = owner.refuses()
        if refused and confirmed:
            owner.confirmed()
            # the next request does not make the consumer believe that the first one was given to it
            assert owner.ledger.receive_copy(frame(b"R.2"), 1) is not None
        elif not refused:
            assert owner.ledger.held == 0
        stopped.go_on()
        outcomes.add((refused, told := tuple(stopped.told())))
        assert told == (() if refused else (b"ran",)), stop_at
        stop_at += 1
    assert outcomes == {(True, ()), (False, (b"ran",))}


def pulled(parts: HostParts, owner: Owner, meanwhile: Callable[[], None]) -> bool:
    """Whether a consumer runs the request. `meanwhile()` happens after it has found that it may."""
    ledger = LockedLedger(parts.directory, parts.new_serial())
    index = ledger.start_pulled(1)

    def enter(origin: Origin) -> bool:
        mine = ledger.start(index, 1, REPLY, b"i", b"t", 0, 1, origin)
        meanwhile()
        return mine

    return ClaimedRequest(owner.token, owner.ledger, 0, [], own=False).begin(enter)


def taken_out(parts: HostParts) -> None:
    """The token of the last request is out of the queue: the test has it."""
    parts.queues[0].receive.recv(64)


async def test_an_owner_stopped_before_any_line_of_a_refusal_is_waited_for_by_a_consumer_that_claims(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "VERDICT_LIMIT", 60.0)
    outcomes, stop_at, over = set(), 1, False
    while not over:
        owner = Owner(parts)
        waited: list[bool] = []
        taken_out(parts)
        stopped: list[Stopped] = []

        def wait(_: float, stopped: list[Stopped] = stopped, waited: list[bool] = waited) -> None:
            waited.append(True)
            stopped[0].go_on()

        monkeypatch.setattr(time, "sleep", wait)
        act = owner.as_child()
        ran = pulled(parts, owner, lambda: stopped.append(Stopped(act, stop_at)))  # noqa: B023
        stopped[0].go_on()
        over = stopped[0].ended
        told = stopped[0].told()
        assert told == ([] if ran else [b"refused"]), stop_at
        outcomes.add((ran, bool(waited)))
        stop_at += 1
    assert outcomes == {(True, False), (True, True), (False, True), (False, False)}


@pytest.mark.parametrize("first", ["the consumer claims", "the supervisor recovers"])
async def test_an_owner_killed_before_any_line_of_a_refusal_leaves_a_request_that_is_run_or_answered_once(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(claim, "VERDICT_LIMIT", 0.002)
    outcomes, kill_at, over = set(), 1, False
    while not over:
        owner = Owner(parts)
        taken_out(parts)
        dead = Stopped(owner.as_child(), kill_at)
        over = dead.ended
        if not over:
            dead.kill()
        parts.ran.clear()
        parts.answers.clear()
        ledger = MappedLedger(parts.directory, owner.ledger.serial)
        if first == "the supervisor recovers":
            await parts.recover(Remains(ledger))
        ran = pulled(parts, owner, lambda: None) if not over else False
        if first == "the consumer claims":
            await parts.recover(Remains(ledger))
        await parts.settle()
        ledger.close()
        answered = parts.answers.get(REPLY, [])
        assert ran + len(parts.ran) + len(answered) == 1, kill_at
        outcomes.add((ran, len(parts.ran), len(answered)))
        kill_at += 1
    moved = set() if first == "the consumer claims" else {(False, 1, 0)}
    assert outcomes >= {(True, 0, 0), (False, 0, 1)} | moved


async def test_a_consumer_killed_before_any_line_leaves_a_request_that_has_one_answer(
    parts: HostParts,
) -> None:
    """Its owner refuses it between the moment in which it stood still and its end."""
    outcomes, kill_at, over = set(), 1, False
    while not over:
        owner, serial = Owner(parts), parts.new_serial()
        dead = Stopped(consumer(parts, serial), kill_at)
        over = dead.ended
        refused = owner.refuses()
        if not over:
            dead.kill()
        parts.ran.clear()
        parts.answers.clear()
        ledger = MappedLedger(parts.directory, serial)
        await parts.recover(Remains(ledger))
        await parts.settle()
        ledger.close()
        answered = parts.answers.get(REPLY, [])
        assert refused + len(parts.ran) + len(answered) == 1, kill_at
        outcomes.add((refused, len(parts.ran), len(answered)))
        kill_at += 1
    assert outcomes == {(True, 0, 0), (False, 0, 1)}


async def test_a_token_that_its_dead_holder_had_not_used_is_left_when_its_owner_refuses_the_request_meanwhile(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, serial = Owner(parts), parts.new_serial()
    ledger = MappedLedger(parts.directory, serial)
    parts.queues[0].receive.recv_into(token_places(ledger)[0])
    copied = parts.standby.copy
    refused = []

    def copy(data: bytes, received_ns: int) -> int | None:
        index = copied(data, received_ns)
        refused.append(owner.refuses())
        return index

    monkeypatch.setattr(parts.standby, "copy", copy)
    await parts.recover(Remains(ledger))
    await parts.settle()
    assert (refused, parts.ran, parts.answers) == ([True], [], {})
    assert not parts.standby.ledger.in_use()
    ledger.close()


def test_an_entry_whose_request_was_refused_while_it_waited_is_used_again_after_256_others() -> None:
    ledger = ledger_in_memory(Geometry(1024, 4096, 1 << 20))

    def refused() -> int:
        index = ledger.receive_copy(frame(REPLY), 1)
        assert index is not None
        seq, _ = ledger.state(index)
        ledger.queue(index, seq)
        assert ledger.take_back(index, seq)
        assert ledger.refuse(index, REPLY)
        ledger.release(index)
        assert ledger.claim_worth(index, seq) is Claim.LOST
        return index

    used = [refused() for _ in range(600)]
    assert used == [n % 257 for n in range(600)]
    assert (ledger.available, ledger.held) == (1024, 0)
    taken = {ledger.receive(4096, 1, 1) for _ in range(1024)}
    assert (len(taken), ledger.available) == (1024, 0), "none is withheld from a ledger that is full"
