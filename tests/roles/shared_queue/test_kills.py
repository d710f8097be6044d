"""The shared queue between real processes: whoever is killed wherever, each request is started once or answered for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.core.recovery_rules import classify
from ajhost.ledger.layout import State
from ajhost.ledger.queue_token import Token
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.protocol.frames import scan
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Consumer, Origin
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import DEFAULT
from ajhost.roles.supervisor.recovery.remains import Remains
from tests.support.host_parts import FAR, HostParts, QueueOwner, enqueue, frame, lying
from tests.support.killed_child import Act, Killed


async def recover(parts: HostParts, serial: int) -> int:
    """What the supervisor does about a dead process; how many of its requests were answered for."""
    ledger = MappedLedger(parts.directory, serial)
    remains = Remains(ledger)
    await parts.recover(remains)
    ledger.close()
    return remains.answered


async def outcome(parts: HostParts, serial: int, killed: Killed, reply: bytes) -> tuple[bool, bool]:
    """Whether a killed worker had started its one request, and had run it: each is settled exactly once."""
    ledger = MappedLedger(parts.directory, serial)
    started = [entry.reply for entry in classify(ledger).answer]
    ledger.close()
    assert await recover(parts, serial) == len(started)
    await parts.settle()
    answered = parts.answers.pop(reply, [])
    if started:
        assert started == [reply]
        assert answered == ["worker died: here"], reply
        assert parts.ran == [], reply
    else:
        assert killed.told == [], "it ran and nobody answers for it"
        assert answered == []
        assert parts.ran == [reply], reply
    return bool(started), bool(killed.told)


# --- kills between any two instructions


def producer(parts: HostParts, serial: int, reply: bytes) -> Act:
    """A worker that receives a request and enqueues it, in the order of the transport."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        loop = asyncio.new_event_loop()
        owner = LockedLedger(parts.directory, serial)
        producer = Producer(owner, parts.queues, loop, lambda index: None)
        buffer, data = ReceiveBuffer(owner), frame(reply)
        buffer.reset()
        buffer.free_space(0)[: len(data)] = data
        buffer.commit(len(data))
        watch(lambda: (bytes(owner.view), lying(parts.queues[0])))
        index = owner.receive(buffer.place(), len(data), 1)
        buffer.consume(len(data))
        assert producer.enqueue(index, data, DEFAULT, FAR)

    return act


async def test_a_pusher_killed_between_any_two_instructions_loses_and_doubles_nothing(
    parts: HostParts,
) -> None:
    whole = Killed(producer(parts, parts.new_serial(), b"R.whole"), 0)
    await parts.settle()
    assert parts.ran == [b"R.whole"]
    found = set()
    for kill_at in whole.changes:
        reply, serial = b"R.%d" % kill_at, parts.new_serial()
        Killed(producer(parts, serial, reply), kill_at)
        ledger = MappedLedger(parts.directory, serial)
        found.add((ledger.state(0)[1], parts.waiting()))
        parts.ran.clear()
        assert await recover(parts, serial) == 0
        await parts.settle()
        assert parts.ran == [reply], kill_at
        assert not parts.standby.ledger.in_use(), "the standby's entry was given back"
        ledger.close()
    assert found >= {
        (State.FREE, False),
        (State.RECEIVED, False),
        (State.RECEIVED, True),
        (State.QUEUED, True),
    }
    assert parts.answers == {}


def consumer(parts: HostParts, serial: int, taken_from: Callable[[], object] = lambda: None) -> Act:
    """A worker that pulls one request and starts it. `taken_from()` is what others see of its first owner."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        loop = asyncio.new_event_loop()
        owner = LockedLedger(parts.directory, serial)
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
            raise AssertionError("it has enqueued nothing")

        pulls = Consumer(owner, parts.directory, parts.queues, loop, lambda queue: not ran, start, resume)
        watch(lambda: (bytes(owner.view), lying(parts.queues[0]), len(ran), taken_from()))
        pulls.begin()
        pulls.end()

    return act


async def test_a_puller_killed_between_any_two_instructions_loses_and_doubles_nothing(
    parts: HostParts,
) -> None:
    owner = QueueOwner(parts)
    owner.enqueue(b"R.whole")
    whole = Killed(consumer(parts, parts.new_serial(), lambda: bytes(owner.ledger.view)), 0)
    assert whole.told == [b"R.whole"]
    outcomes = set()
    for kill_at in whole.changes:
        reply, dead = b"R.%d" % kill_at, parts.new_serial()
        parts.ran.clear()
        owner.enqueue(reply)
        killed = Killed(consumer(parts, dead), kill_at)
        outcomes.add(await outcome(parts, dead, killed, reply))
        owner.producer.expire(1)
        assert owner.ledger.held == 0, "the pusher has its entry and its room back"
    assert outcomes == {(False, False), (True, False), (True, True)}


def withdrawer(parts: HostParts, serial: int, reply: bytes) -> Act:
    """A worker that enqueued a request, and pulls and starts it itself, in the order of admission."""

    def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
        loop = asyncio.new_event_loop()
        owner = LockedLedger(parts.directory, serial)
        producer = Producer(owner, parts.queues, loop, lambda index: None)
        enqueue(owner, producer, reply)
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

        pulls = Consumer(owner, parts.directory, parts.queues, loop, lambda queue: not ran, start, resume)
        watch(lambda: (bytes(owner.view), lying(parts.queues[0]), len(ran)))
        pulls.begin()
        pulls.end()

    return act


async def test_who_pulls_its_own_request_and_is_killed_anywhere_loses_and_doubles_nothing(
    parts: HostParts,
) -> None:
    whole = Killed(withdrawer(parts, parts.new_serial(), b"R.whole"), 0)
    assert whole.told == [b"R.whole"]
    outcomes = set()
    for kill_at in whole.changes:
        reply, dead = b"R.%d" % kill_at, parts.new_serial()
        parts.ran.clear()
        killed = Killed(withdrawer(parts, dead, reply), kill_at)
        outcomes.add(await outcome(parts, dead, killed, reply))
        assert not parts.standby.ledger.in_use(), "the standby's entry was given back"
    assert outcomes == {(False, False), (True, False), (True, True)}


async def test_a_token_that_a_dead_puller_held_undecided_is_sent_again(parts: HostParts) -> None:
    owner = LockedLedger(parts.directory, parts.new_serial())
    index = owner.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    parts.queues[0].send.send(Token(owner.serial, index, 1, FAR).pack())
    dead = parts.new_serial()
    assert Killed(consumer(parts, dead), 0).told == []
    owner.queue(index, 1)
    assert not parts.waiting()
    await recover(parts, dead)
    await parts.settle()
    assert parts.ran == [b"R.1"]
