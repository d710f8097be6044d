"""What an earlier start left, whoever of it was killed wherever: each request runs once, or is answered for."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
from collections.abc import Callable

import pytest

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.recovery_rules import Fact, overdue
from ajhost.ledger.layout import ENTRY_SIZE, HEADER_SIZE, Identity, State, Word
from ajhost.ledger.queue_token import Token, token_places
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.ledger.view import Ledger
from ajhost.protocol.outcome import Failed
from ajhost.roles import ledger_sizes
from ajhost.roles.shared_queue.token_queues import DEFAULT, TokenQueue, open_queue
from ajhost.roles.supervisor.fd_store import FdStore, InheritedConnections, Key, stored_name
from ajhost.roles.supervisor.recovery.orphan import Orphan
from ajhost.roles.supervisor.recovery.procedure import Recovery
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby
from tests.support.host_parts import GEOMETRY, HostParts, frame, lying, recovery_of
from tests.support.killed_child import Act, Killed
from tests.support.peer_socket import Peer
from tests.support.waiting import until

OLD_WORKER, OLD_STANDBY, OLD_PUSHER = 1, 2, 3


GUARD = FaultGuard(logging.getLogger("test"))


class EarlierStart:
    """The directory of an earlier start: a dead worker, with requests at every stage before a handler."""

    def __init__(self, parts: HostParts, name: str) -> None:
        self.parts = parts
        self.runtime = parts.runtime / name
        self.directory = self.runtime / "ledger"
        self.directory.mkdir(parents=True)
        self.replies = [b"R.%b.%d" % (name.encode(), i) for i in range(5)]
        ledger_file.make(self.directory, GEOMETRY, Identity(OLD_WORKER, 0, 1))
        self.worker = LockedLedger(self.directory, OLD_WORKER)
        MappedLedger(self.directory, OLD_WORKER).close()  # gives up the lock, which says that its owner lives

    def fill(self, peer: Peer | None = None) -> None:
        """One request QUEUED, one RECEIVED in the store, one RECEIVED in the chunk, two only in the chunk.

        What is in the chunk came from the peer, if there is one, and that has sent one more.
        """
        owner, buffer = self.worker, ReceiveBuffer(self.worker)
        for reply in self.replies[:2]:
            index = owner.receive_copy(frame(reply), 1)
            assert index is not None
            owner.set_deadline(index, 1 << 61)
        owner.queue(0, 1)
        data = b"".join(map(frame, self.replies[2:]))
        buffer.reset()
        if peer is None:
            buffer.free_space(0)[: len(data)] = data
        else:
            self.replies.append(self.replies[-1] + b".unread")
            peer.send(data + frame(self.replies[-1]))
            assert peer.theirs.recv_into(buffer.free_space(0)[: len(data)]) == len(data)
        buffer.commit(len(data))
        owner.receive(buffer.place(), len(frame(self.replies[2])), 1)

    def fill_with_too_much(self) -> None:
        """Requests in the chunk that are more than a small standby holds, and one that waits past its deadline."""
        owner, buffer = self.worker, ReceiveBuffer(self.worker)
        index = owner.receive_copy(frame(self.replies[0]), 1)
        assert index is not None
        owner.set_deadline(index, 1)
        data = b"".join(frame(reply, padding=20_000) for reply in self.replies[1:])
        buffer.reset()
        for begin in range(0, len(data), 1 << 15):
            piece = data[begin : begin + (1 << 15)]
            buffer.free_space(0)[: len(piece)] = piece
            buffer.commit(len(piece))

    def supervisor(self) -> Act:
        """The supervisor of that start: it answers what is overdue, and moves what its worker had not started."""

        def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
            asyncio.run(self._move(watch))

        return act

    def hang(self) -> int:
        """Its worker lives, stopped, with a token of a request that waits in another's ledger; the pid."""
        ledger_file.make(self.directory, GEOMETRY, Identity(OLD_PUSHER, 1, 1))
        pusher = LockedLedger(self.directory, OLD_PUSHER)
        MappedLedger(self.directory, OLD_PUSHER).close()
        self.replies.append(self.replies[-1] + b".token")
        index = pusher.receive_copy(frame(self.replies[-1]), 1)
        assert index is not None
        pusher.queue(index, 1)
        token_places(self.worker)[0][:] = Token(OLD_PUSHER, index, 1, 1 << 61).pack()
        return stopped_owner(self)

    def relief(self, sock: socket.socket | None) -> Act:
        """The supervisor of that start: its worker hangs, and it takes over what that had not started."""

        def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
            asyncio.run(self._relieve(sock, watch))

        return act

    async def _relieve(self, sock: socket.socket | None, watch: Callable[[Callable[[], object]], None]) -> None:
        standby, queue = self._standby(OLD_STANDBY)
        recovery = recovery_of(self.directory, standby)
        ledger = MappedLedger(self.directory, OLD_WORKER)
        others = [ledger, MappedLedger(self.directory, OLD_PUSHER)]
        watch(lambda: (told_by(standby.ledger), *map(told_by, others), lying(queue)))
        await recovery.recover(Remains(ledger, Fact.OWNER_STOPPED, sock=sock))

    async def _move(self, watch: Callable[[Callable[[], object]], None]) -> None:
        standby, queue = self._standby(OLD_STANDBY)
        recovery = recovery_of(self.directory, standby)
        ledger = MappedLedger(self.directory, OLD_WORKER)
        watch(lambda: (told_by(standby.ledger), told_by(ledger), lying(queue)))
        for entry in overdue(ledger, 2):
            standby.answer_for(ledger, entry, Failed("deadline exceeded: here"))
        await recovery.recover(Remains(ledger))

    def _standby(self, serial: int) -> tuple[Standby, TokenQueue]:
        """A standby of an earlier start, without a connection, and its shared queue, which ends with its process."""
        queue = open_queue(DEFAULT)
        spec = dataclasses.replace(self.parts.plan, runtime=self.runtime)
        ledger_sizes.HELD_BY_STANDBY = 16  # in a process of its own: each instruction that it executes is looked at
        return Standby(spec, serial, [queue], 1 << 12, FdStore(Notifier())), queue

    def successor(self, number: int = 1) -> Act:
        """The supervisor of the start after it, or of a later one: it settles what those before it left."""

        def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
            asyncio.run(self._settle(OLD_STANDBY + number, watch))

        return act

    async def _settle(self, serial: int, watch: Callable[[Callable[[], object]], None]) -> None:
        standby, queue = self._standby(serial)
        left = [MappedLedger(self.directory, serial) for serial in (OLD_WORKER, OLD_STANDBY)]
        recovery = recovery_of(self.directory, standby)
        watch(lambda: (told_by(standby.ledger), *map(told_by, left), lying(queue)))
        await recovery.recover_previous_start()

    async def next_start(self) -> None:
        """What the next supervisor does about it, with the standby."""
        await self.recovery().recover_previous_start()
        await self.parts.settle()

    def recovery(self) -> Recovery:
        """What knows of all that there is of it, for the standby."""
        return recovery_of(self.directory, self.parts.standby)


def told_by(ledger: Ledger) -> tuple[bytes, bytes]:
    """What a ledger tells the next start: its header, the entries that are used here, and their store."""
    store, last = ledger.words[Word.STORE_AT], HEADER_SIZE + 16 * ENTRY_SIZE
    return bytes(ledger.view[:last]), bytes(ledger.view[store : store + 4096])


async def remembered(parts: HostParts) -> None:
    """What our code remembers of a first request, it remembers: from now on each process does the same steps."""
    old = EarlierStart(parts, "first")
    old.fill()
    await old.next_start()
    parts.ran.clear()


async def test_the_next_start_runs_what_a_dead_worker_had_not_started(parts: HostParts) -> None:
    old = EarlierStart(parts, "old")
    old.fill()
    await old.next_start()
    assert sorted(parts.ran) == old.replies
    assert parts.answers == {}


async def test_a_previous_start_is_settled_by_one_at_a_time_however_long_a_connection_takes(
    parts: HostParts,
) -> None:
    """The supervisor looks at every tick, and a server may take two seconds to end an inherited connection."""
    old = EarlierStart(parts, "old")
    old.fill()
    index = old.worker.receive_copy(frame(b"R.started"), 1)
    assert index is not None
    old.worker.start(index, 1, b"R.started", b"i", b"t", 0, 1)
    recovery = old.recovery()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        inherited = socket.create_connection(listening.getsockname())
        slow, _ = listening.accept()
    assert (
        recovery.previous_start.connections.take_stored([(stored_name(Key(OLD_WORKER, 1)), inherited.detach())]) == []
    )
    assert recovery.previous_start.due()
    first = asyncio.create_task(recovery.recover_previous_start())
    await until(lambda: b"R.started" in parts.answers)
    assert not first.done()
    assert not recovery.previous_start.due()
    second = asyncio.create_task(recovery.recover_previous_start())
    await asyncio.sleep(0)
    slow.close()
    await asyncio.gather(first, second)
    await parts.settle()
    assert sorted(parts.ran) == old.replies
    assert parts.answers == {b"R.started": ["worker died: here"]}
    assert not recovery.previous_start.due()


async def test_a_supervisor_killed_anywhere_in_a_takeover_loses_and_doubles_nothing(parts: HostParts) -> None:
    await remembered(parts)
    wrong, changes = {}, [0]
    for kill_at in changes:
        parts.ran.clear()
        old = EarlierStart(parts, f"k{kill_at}")
        old.fill()
        changes += Killed(old.supervisor(), kill_at).changes
        await old.next_start()
        if sorted(parts.ran) != old.replies:
            wrong[kill_at] = sorted(parts.ran)
    assert len(changes) > 20
    assert wrong == {}


async def test_a_start_killed_anywhere_while_it_settles_what_two_others_left_loses_and_doubles_nothing(
    parts: HostParts,
) -> None:
    """One supervisor dies in the middle of a takeover, the next while it settles that: the third has it all."""
    await remembered(parts)
    whole = EarlierStart(parts, "whole")
    whole.fill()
    moves = Killed(whole.supervisor(), 0).changes
    wrong = {}
    first, settles = moves[len(moves) // 2], [0]
    for second in settles:
        parts.ran.clear()
        old = EarlierStart(parts, f"k{second}")
        old.fill()
        Killed(old.supervisor(), first)
        settles += Killed(old.successor(), second).changes
        await old.next_start()
        if sorted(parts.ran) != old.replies:
            wrong[second] = sorted(parts.ran)
    assert len(settles) > 20
    assert wrong == {}


@pytest.mark.parametrize("connected", [False, True])
async def test_a_supervisor_killed_anywhere_while_it_relieves_a_worker_loses_and_doubles_nothing(
    parts: HostParts, connected: bool
) -> None:
    """The next start lets the worker go on, unless it would go on with what is somewhere else as well."""
    await remembered(parts)
    wrong, ends, changes = {}, set(), [0]
    for kill_at in changes:
        parts.ran.clear()
        old = EarlierStart(parts, f"k{kill_at}")
        with Peer() as peer:
            old.fill(peer)
            peer.close()
            kept = os.dup(peer.theirs.fileno())
            worker = old.hang()
            changes += Killed(old.relief(peer.theirs if connected else None), kill_at).changes
            recovery = old.recovery()
            assert recovery.previous_start.connections.take_stored([(stored_name(Key(OLD_WORKER, 1)), kept)]) == []
            await recovery.recover_previous_start()
            ends.add(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))
            await recovery.recover_previous_start()  # and what it had not run by then
        await parts.settle()
        if sorted(parts.ran) != sorted(old.replies):
            wrong[kill_at] = sorted(parts.ran)
    assert len(changes) > 20
    assert wrong == {}
    assert ends == {0, -signal.SIGKILL}


async def test_what_a_supervisor_answers_for_others_is_answered_wherever_it_is_killed(
    parts: HostParts,
) -> None:
    """A refusal for want of room, and a deadline that passed: not one of them is only in its memory."""
    await remembered(parts)
    wrong: dict[int, object] = {}
    changes = [0]
    for kill_at in changes:
        parts.ran.clear()
        parts.answers.clear()
        old = EarlierStart(parts, f"k{kill_at}")
        old.fill_with_too_much()
        changes += Killed(old.supervisor(), kill_at).changes
        await old.next_start()
        if {*parts.ran, *parts.answers} != set(old.replies) or len(set(parts.ran)) != len(parts.ran):
            wrong[kill_at] = (sorted(parts.ran), parts.answers)
        if not kill_at:
            assert old.replies[0] in parts.answers
            assert 1 < len(parts.answers) < len(old.replies)
    assert len(changes) > 20
    assert wrong == {}


async def test_what_a_dead_puller_had_started_is_not_run_again_by_the_next_start(parts: HostParts) -> None:
    """Its own entry says so before the word that frees the first owner's."""
    old = EarlierStart(parts, "old")
    index = old.worker.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    old.worker.queue(index, 1)
    ledger_file.make(old.directory, GEOMETRY, Identity(3, 1, 1))
    consumer = LockedLedger(old.directory, 3)
    consumer.start(consumer.start_pulled(1), 1, b"R.1", b"i", b"t", 0, 1, (OLD_WORKER, index, 1))
    await old.next_start()
    assert parts.ran == []
    assert parts.answers == {b"R.1": ["worker died: here"]}


async def test_what_a_dead_supervisor_spoke_for_but_did_not_answer_is_answered_by_the_next_start(
    parts: HostParts,
) -> None:
    old = EarlierStart(parts, "old")
    index = old.worker.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    old.worker.start(index, 1, b"R.1", b"i", b"t", 0, 1)
    old.worker.revoke(index, 1)  # and it was killed before the answer left
    await old.next_start()
    assert parts.answers == {b"R.1": ["worker died: here"]}


async def test_starts_that_die_before_their_answers_leave_do_not_add_to_them(parts: HostParts) -> None:
    """Each finds what the ones before it wrote down, and what they wrote it for: it is one answer all the same."""
    old = EarlierStart(parts, "old")
    index = old.worker.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    old.worker.start(index, 1, b"R.1", b"i", b"t", 0, 1)
    Killed(old.supervisor(), 0)
    Killed(old.successor(), 0)
    Killed(old.successor(2), 0)
    await old.next_start()
    assert parts.answers == {b"R.1": ["worker died: here"]}


async def test_a_refusal_that_did_not_leave_is_answered_on_its_own_subject(parts: HostParts) -> None:
    old = EarlierStart(parts, "old")
    earlier = old.worker.start_pulled(1)
    old.worker.start(earlier, 1, b"R.earlier", b"i", b"t", 0, 1, (9, 9, 9))
    old.worker.answer(earlier)
    old.worker.release(earlier)
    index = old.worker.receive_copy(frame(b"R.refused"), 1)
    assert index == earlier
    old.worker.refuse(index, b"R.refused")
    assert old.worker.state(index)[1] == State.ANSWERED
    await old.next_start()
    assert set(parts.answers) == {b"R.refused"}


async def test_a_stored_connection_counts_only_with_the_epoch_that_the_ledger_tells(parts: HostParts) -> None:
    """It had connected again: what was read from the earlier connection says nothing about the bytes of the present."""
    old = EarlierStart(parts, "old")
    buffer = ReceiveBuffer(old.worker)
    recovery = old.recovery()
    names = []
    with Peer() as earlier, Peer() as present:
        for epoch, peer, first in ((1, earlier, b"R.old"), (2, present, b"R.0")):
            buffer.reset()
            peer.send(frame(first, padding=3000))
            left = len(frame(first, padding=3000)) - (10 if epoch == 2 else 0)
            while left:
                count = peer.theirs.recv_into(buffer.free_space(0)[:left])
                buffer.commit(count)
                left -= count
            if epoch == 1:  # and it had started this one, and answered it
                buffer.consume(buffer.received)
            names.append((stored_name(Key(OLD_WORKER, epoch)), os.dup(peer.theirs.fileno())))
        present.send(frame(b"R.1"))
        earlier.close()
        assert recovery.previous_start.connections.take_stored(names[::-1]) == []
        settled = asyncio.create_task(recovery.recover_previous_start())
        await present.ended()
        present.send(frame(b"R.2"))
        present.close()
        await settled
    await parts.settle()
    assert sorted(parts.ran) == [b"R.0", b"R.1", b"R.2"]
    assert parts.answers == {}


async def test_an_orphan_in_the_middle_of_whose_takeover_the_supervisor_died_does_not_go_on(
    parts: HostParts,
) -> None:
    old = EarlierStart(parts, "old")
    old.fill()
    words = old.worker.words
    words[Word.FENCED_EPOCH] = words[Word.EPOCH]
    pid = stopped_owner(old)
    recovery = old.recovery()
    await recovery.recover_previous_start()
    assert parts.ran == []
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert recovery.previous_start.due()
    await recovery.recover_previous_start()
    await parts.settle()
    assert sorted(parts.ran) == old.replies


async def test_an_orphan_that_its_supervisor_had_only_stopped_goes_on(parts: HostParts) -> None:
    old = EarlierStart(parts, "old")
    old.fill()
    pid = stopped_owner(old)
    recovery = old.recovery()
    await recovery.recover_previous_start()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert parts.ran == []


async def test_an_orphan_that_is_forgotten_counts_as_dead(parts: HostParts) -> None:
    """Whoever could not stop it tries again a second later, and its descriptor may be another file's by then."""
    old = EarlierStart(parts, "old")
    pid = stopped_owner(old)
    orphan = Orphan(old.directory, OLD_WORKER, pid, InheritedConnections(FdStore(Notifier()), ()))
    deaths = [orphan.dead]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    number = orphan.pidfd
    orphan.close()
    own = os.pidfd_open(os.getpid())
    os.dup2(own, number)
    deaths.append(orphan.dead)
    for descriptor in {own, number}:
        os.close(descriptor)
    assert deaths == [False, True]


def stopped_owner(old: EarlierStart) -> int:
    """A process that owns the worker's ledger and has been stopped; it ends when it is let go on."""
    if pid := os.fork():
        os.waitpid(pid, os.WUNTRACED)
        return pid
    try:
        owner = LockedLedger(old.directory, OLD_WORKER)
        os.kill(os.getpid(), signal.SIGSTOP)
        assert owner.words[Word.EPOCH] == 1
    finally:
        os._exit(0)
