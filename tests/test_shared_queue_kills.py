"""The shared queue between real processes: whoever is killed wherever, each request is started once or answered for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.core.recovery import classify
from ajhost.ledger.layout import State
from ajhost.ledger.queue_token import Token
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.protocol.frames import scan
from ajhost.protocol.outcome import Failed
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Consumer, Origin
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.queue import DEFAULT
from ajhost.roles.supervisor.recovery.takeover import answer_started, requeue_tokens, requeue_waiting
from tests.support.house import Act, House, Killed, frame, lying

FAR = 1 << 61


async def inherit(home: House, serial: int) -> int:
    """What the supervisor does about a dead process; how many of its requests were answered for."""
    ledger = MappedLedger(home.directory, serial)
    answered = answer_started(ledger, home.standby, lambda entry: Failed("worker died: here"), home.ledgers)
    await requeue_waiting(ledger, None, home.standby)
    requeue_tokens(ledger, home.standby, home.ledgers)
    ledger.close()
    return answered


async def outcome(home: House, serial: int, killed: Killed, reply: bytes) -> tuple[bool, bool]:
    """Whether a killed worker had started its one request, and had run it: each is settled exactly once."""
    ledger = MappedLedger(home.directory, serial)
    started = [entry.reply for entry in classify(ledger).started]
    ledger.close()
    assert await inherit(home, serial) == len(started)
    await home.settle()
    answered = home.answers.pop(reply, [])
    if started:
        assert started == [reply]
        assert answered == ["worker died: here"], reply
        assert home.ran == [], reply
    else:
        assert killed.told == [], "it ran and nobody answers for it"
        assert answered == []
        assert home.ran == [reply], reply
    return bool(started), bool(killed.told)


# --- kills between any two instructions


def pusher(home: House, serial: int, reply: bytes) -> Act:
    """A worker that receives a request and enqueues it, in the order of the transport."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        loop = asyncio.new_event_loop()
        owner = LockedLedger(home.directory, serial)
        producer = Producer(owner, home.queues, loop, lambda index: None)
        buffer, data = ReceiveBuffer(owner), frame(reply)
        buffer.reset()
        buffer.free_space(0)[: len(data)] = data
        buffer.commit(len(data))
        watch(lambda: (bytes(owner.view), lying(home.queues[0])))
        index = owner.receive(buffer.place(), len(data), 1)
        buffer.consume(len(data))
        assert producer.enqueue(index, data, DEFAULT, FAR)

    return act


async def test_a_pusher_killed_between_any_two_instructions_loses_and_doubles_nothing(home: House) -> None:
    whole = Killed(pusher(home, home.new_serial(), b"R.whole"), 0)
    await home.settle()
    assert home.ran == [b"R.whole"]
    found = set()
    for kill_at in whole.changes:
        reply, serial = b"R.%d" % kill_at, home.new_serial()
        Killed(pusher(home, serial, reply), kill_at)
        ledger = MappedLedger(home.directory, serial)
        found.add((ledger.state(0)[1], home.waiting()))
        home.ran.clear()
        assert await inherit(home, serial) == 0
        await home.settle()
        assert home.ran == [reply], kill_at
        assert not home.standby.ledger.in_use(), "the standby's entry was given back"
        ledger.close()
    assert found >= {
        (State.FREE, False),
        (State.RECEIVED, False),
        (State.RECEIVED, True),
        (State.QUEUED, True),
    }
    assert home.answers == {}


def consumer(home: House, serial: int, taken_from: Callable[[], object] = lambda: None) -> Act:
    """A worker that pulls one request and starts it. `taken_from()` is what others see of its first owner."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        loop = asyncio.new_event_loop()
        owner = LockedLedger(home.directory, serial)
        ran = []

        def start(data: bytes, claimed: ClaimedRequest) -> None:
            reply = scan(data).messages[0][5]
            index = owner.start_pulled(1)

            def enter(origin: Origin) -> bool:
                return owner.start(index, 1, reply, b"i", b"t", 0, 1, origin)

            assert claimed.begin(enter)
            ran.append(reply)
            tell(reply)

        def resume(claimed: ClaimedRequest) -> None:
            raise AssertionError("it has lent nothing")

        pulls = Consumer(owner, home.directory, home.queues, loop, lambda queue: not ran, start, resume)
        watch(lambda: (bytes(owner.view), lying(home.queues[0]), len(ran), taken_from()))
        pulls.begin()
        pulls.end()

    return act


async def test_a_puller_killed_between_any_two_instructions_loses_and_doubles_nothing(home: House) -> None:
    serial = home.new_serial()
    owner = LockedLedger(home.directory, serial)
    producer = Producer(owner, home.queues, asyncio.get_running_loop(), lambda index: None)

    def lend(reply: bytes) -> None:
        index = owner.receive_copy(frame(reply), 1)
        assert index is not None
        assert producer.enqueue(index, None, DEFAULT, FAR)

    lend(b"R.whole")
    whole = Killed(consumer(home, home.new_serial(), lambda: bytes(owner.view)), 0)
    assert whole.told == [b"R.whole"]
    outcomes = set()
    for kill_at in whole.changes:
        reply, dead = b"R.%d" % kill_at, home.new_serial()
        home.ran.clear()
        lend(reply)
        killed = Killed(consumer(home, dead), kill_at)
        outcomes.add(await outcome(home, dead, killed, reply))
        producer.expire(1)
        assert owner.held == 0, "the pusher has its entry and its room back"
    assert outcomes == {(False, False), (True, False), (True, True)}


def regainer(home: House, serial: int, reply: bytes) -> Act:
    """A worker that enqueued a request, and pulls and starts it itself, in the order of admission."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        loop = asyncio.new_event_loop()
        owner = LockedLedger(home.directory, serial)
        producer = Producer(owner, home.queues, loop, lambda index: None)
        index = owner.receive_copy(frame(reply), 1)
        assert index is not None
        assert producer.enqueue(index, None, DEFAULT, FAR)
        ran = []

        def start(data: bytes, claimed: ClaimedRequest) -> None:
            raise AssertionError("it is its own")

        def resume(claimed: ClaimedRequest) -> None:
            index = claimed.token.entry
            producer.withdraw(index)
            assert claimed.begin(lambda origin: owner.start(index, 1, reply, b"i", b"t", 0, 1, origin))
            owner.drop_frame(index)
            ran.append(reply)
            tell(reply)

        pulls = Consumer(owner, home.directory, home.queues, loop, lambda queue: not ran, start, resume)
        watch(lambda: (bytes(owner.view), lying(home.queues[0]), len(ran)))
        pulls.begin()
        pulls.end()

    return act


async def test_who_pulls_its_own_request_and_is_killed_anywhere_loses_and_doubles_nothing(
    home: House,
) -> None:
    whole = Killed(regainer(home, home.new_serial(), b"R.whole"), 0)
    assert whole.told == [b"R.whole"]
    outcomes = set()
    for kill_at in whole.changes:
        reply, dead = b"R.%d" % kill_at, home.new_serial()
        home.ran.clear()
        killed = Killed(regainer(home, dead, reply), kill_at)
        outcomes.add(await outcome(home, dead, killed, reply))
        assert not home.standby.ledger.in_use(), "the standby's entry was given back"
    assert outcomes == {(False, False), (True, False), (True, True)}


async def test_a_token_that_a_dead_puller_held_undecided_is_sent_again(home: House) -> None:
    owner = LockedLedger(home.directory, home.new_serial())
    index = owner.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    home.queues[0].send.send(Token(owner.serial, index, 1, FAR).pack())
    dead = home.new_serial()
    assert Killed(consumer(home, dead), 0).told == []
    owner.queue(index, 1)
    assert not home.waiting()
    await inherit(home, dead)
    await home.settle()
    assert home.ran == [b"R.1"]
