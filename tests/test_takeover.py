"""Takeover of real connections: whatever a killed process had received, recorded or begun runs once or is answered."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ajhost.adapters import ledger_file, tcp
from ajhost.adapters.ledger_file import MappedLedger, OwnedLedger
from ajhost.adapters.sd_notify import Notifier
from ajhost.core.chunk import Chunk
from ajhost.core.layout import ENTRY_SIZE, HEADER_SIZE, Geometry, Identity, State, Word
from ajhost.core.ledger import Entry, Ledger
from ajhost.protocol.frames import scan
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.roles.shared_queue.lane import GENERAL, Lane, open_lane
from ajhost.roles.shared_queue.maps import Maps
from ajhost.roles.supervisor import desk as desk_module
from ajhost.roles.supervisor.desk import Desk
from ajhost.roles.supervisor.leftovers import Graveyard, Leftovers
from ajhost.roles.supervisor.stored import Key, Stored, stored_name
from ajhost.roles.supervisor.takeover import answer_started, move_waiting
from tests.support.house import GEOMETRY, SUBJECT, Act, House, Killed, body, frame, house, lying, until

COUNT = 4
CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
    b"SUB %b ajhost 1\r\nPING\r\n" % SUBJECT.encode()
)
STEPS = ("unrecorded", "recorded", "entered", "done", "started")


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


def died(entry: Entry) -> Outcome:
    return Failed("worker died: here")


class Worker:
    """A child that subscribes on a connection of its own and, when told, takes `size` bytes and goes as far as `step`.

    It then waits; `sock` is the duplicate that its supervisor has.
    """

    def __init__(self, home: House, size: int, step: str) -> None:
        self.home = home
        self.serial = home.new_serial()
        self.sock = socket.create_connection(("127.0.0.1", home.server.port))
        self._reader, writer = os.pipe()
        gate, self._gate = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self._live(size, step, writer, gate)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        os.close(gate)

    def _live(self, size: int, step: str, writer: int, gate: int) -> None:
        owner = OwnedLedger(self.home.directory, self.serial)
        chunk, sock = Chunk(owner), self.sock
        chunk.reset()
        sock.sendall(CONNECT)
        while b"PONG\r\n" not in (data := chunk.unparsed()):
            chunk.take(sock.recv_into(chunk.space(0)))
        chunk.advance(len(data))
        os.write(writer, b".")
        os.read(gate, 1)
        left = size
        while left:
            count = sock.recv_into(chunk.space(0)[:left])
            left -= count
            if step != "unrecorded" or left:
                chunk.take(count)
        batch = []
        if step not in ("unrecorded", "recorded"):
            found = scan(chunk.unparsed())
            place = chunk.place()
            batch = [(owner.receive(place + m[0], m[3] - m[0], 1), m[5]) for m in found.messages]
            if step != "entered":
                chunk.advance(found.end)
            if step == "started" and batch:
                owner.start(batch[0][0], 1 << 61, 1, batch[0][1], b"i", b"t", 0, 1)
        os.write(writer, b".")
        os.read(gate, 1)
        # it goes on after a hang
        mine = [owner.start(index, 1, 1, reply, b"", b"", 0, 1) for index, reply in batch]
        os.write(writer, b"mine" if any(mine) else b"none")

    async def told(self, size: int = 1) -> bytes:
        return await asyncio.to_thread(os.read, self._reader, size)

    def go_on(self) -> None:
        os.write(self._gate, b".")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._gate)


async def handed_over(
    home: House, size: int, step: str, number: int, padding: int = 0
) -> tuple[Worker, list[bytes]]:
    """A worker at its step, with `COUNT` requests sent to it by the server; their reply subjects."""
    worker = Worker(home, size, step)
    assert await worker.told() == b".", "it could not subscribe"
    replies = [b"R.%d.%d" % (number, i) for i in range(COUNT)]
    for reply in replies:
        await home.client.publish(SUBJECT, body(0, padding), reply.decode())
    await home.client.flush()
    if not padding:
        total = sum(len(frame(reply)) for reply in replies)
        await until(lambda: tcp._unread(worker.sock) == total)
    worker.go_on()
    assert await worker.told() == b".", "it died by itself"
    return worker, replies


async def taken_over(home: House, worker: Worker) -> int:
    ledger = MappedLedger(home.directory, worker.serial)
    answered = answer_started(ledger, home.desk, died, home.maps)
    await move_waiting(ledger, worker.sock, home.desk)
    ledger.close()
    return answered


@pytest.mark.parametrize("step", STEPS)
async def test_a_worker_killed_at_every_cut_of_its_stream_loses_and_doubles_nothing(
    home: House, step: str
) -> None:
    one = len(frame(b"R.00.0"))
    # each end of a frame, the bytes around it, and places within lines and bodies
    cuts = sorted({0, 1, 2, 10, 30, one // 2, *(k * one + d for k in (1, 2) for d in (-2, -1, 0, 1, 20))})
    for number, size in enumerate([*cuts, COUNT * one], start=10):
        home.ran.clear()
        home.answers.clear()
        worker, replies = await handed_over(home, size, step, number)
        worker.kill()
        answered = await taken_over(home, worker)
        worker.close()
        await home.settle()
        assert answered == (step == "started" and size >= one)
        assert sorted(home.ran) == replies[answered:], size
        assert home.answers == {reply: ["worker died: here"] for reply in replies[:answered]}, size
        assert worker.sock.fileno() < 0, "the inherited connection is closed"
        assert not home.desk.ledger.in_use()


@pytest.mark.parametrize("size", [0, 5, 30_000, 60_000])
@pytest.mark.parametrize("step", STEPS[:4])
async def test_frames_that_do_not_fit_what_is_left_of_the_chunk_are_moved_whole(
    home: House, step: str, size: int
) -> None:
    worker, replies = await handed_over(home, size, step, 1, padding=28_000)
    worker.kill()
    await taken_over(home, worker)
    worker.close()
    await home.settle()
    assert sorted(home.ran) == replies


@pytest.mark.parametrize("step", STEPS[:4])
async def test_a_hanging_worker_that_goes_on_finds_that_nothing_is_its_own_any_more(
    home: House, step: str
) -> None:
    size = 2 * len(frame(b"R.1.0")) + 20
    worker, replies = await handed_over(home, size, step, 1)
    os.kill(worker.pid, signal.SIGSTOP)
    os.waitpid(worker.pid, os.WUNTRACED)
    assert await taken_over(home, worker) == 0
    os.kill(worker.pid, signal.SIGCONT)
    worker.go_on()
    assert await worker.told(4) == b"none"
    os.waitpid(worker.pid, 0)
    worker.close()
    ledger = MappedLedger(home.directory, worker.serial)
    assert ledger.words[Word.STOLEN] == ledger.words[Word.EPOCH] == 1
    await home.settle()
    assert sorted(home.ran) == replies


async def test_a_connection_is_taken_over_once(home: House) -> None:
    worker, replies = await handed_over(home, 50, "recorded", 1)
    worker.kill()
    await taken_over(home, worker)
    ledger = MappedLedger(home.directory, worker.serial)
    assert await move_waiting(ledger, None, home.desk) == 0
    worker.close()
    await home.settle()
    assert sorted(home.ran) == replies


async def test_a_server_that_is_gone_leaves_what_had_come(home: House) -> None:
    size = 2 * len(frame(b"R.1.0"))
    worker, replies = await handed_over(home, size, "recorded", 1)
    await home.server.kill()
    worker.kill()
    await taken_over(home, worker)
    worker.close()
    home.puller.begin()
    await until(lambda: sorted(home.ran) == replies)
    await home.server.start()


# --- a supervisor that is killed in the middle of it, and the next start


OLD_WORKER, OLD_DESK = 1, 2


class Past:
    """The directory of an earlier start: a dead worker, with requests at every stage before a handler."""

    def __init__(self, home: House, name: str) -> None:
        self.home = home
        self.runtime = home.runtime / name
        self.directory = self.runtime / "ledger"
        self.directory.mkdir(parents=True)
        self.replies = [b"R.%b.%d" % (name.encode(), i) for i in range(5)]
        ledger_file.make(self.directory, GEOMETRY, Identity(OLD_WORKER, 0, 1))
        self.worker = OwnedLedger(self.directory, OLD_WORKER)
        MappedLedger(self.directory, OLD_WORKER).close()  # gives up the lock, which says that its owner lives

    def fill(self) -> None:
        """One request QUEUED, one RECEIVED in the store, one RECEIVED in the chunk, two only in the chunk."""
        owner, chunk = self.worker, Chunk(self.worker)
        for reply in self.replies[:2]:
            index = owner.receive_copy(frame(reply), 1)
            assert index is not None
            owner.set_deadline(index, 1 << 61)
        owner.queue(0, 1)
        data = b"".join(map(frame, self.replies[2:]))
        chunk.reset()
        chunk.space(0)[: len(data)] = data
        chunk.take(len(data))
        owner.receive(chunk.place(), len(frame(self.replies[2])), 1)

    def supervisor(self) -> Act:
        """The supervisor of that start: it moves what its worker had not started."""

        def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
            asyncio.run(self._move(watch))

        return act

    async def _move(self, watch: Callable[[Callable[[], object]], None]) -> None:
        desk, lane = self._desk(OLD_DESK)
        ledger = MappedLedger(self.directory, OLD_WORKER)
        watch(lambda: (told_by(desk.ledger), told_by(ledger), lying(lane)))
        await move_waiting(ledger, None, desk)

    def _desk(self, serial: int) -> tuple[Desk, Lane]:
        """A desk of an earlier start, without a connection, and its shared queue, which ends with its process."""
        lane = open_lane(GENERAL)
        plan = dataclasses.replace(self.home.plan, runtime=self.runtime)
        desk_module._HELD = 16  # in a process of its own: each instruction that it executes is looked at
        return Desk(plan, serial, [lane], 1 << 12, lambda epoch, sock: None), lane

    def successor(self) -> Act:
        """The supervisor of the start after it: it settles what that one left."""

        def act(tell: Callable[[bytes], None], watch: Callable[[Callable[[], object]], None]) -> None:
            asyncio.run(self._settle(watch))

        return act

    async def _settle(self, watch: Callable[[Callable[[], object]], None]) -> None:
        desk, lane = self._desk(OLD_DESK + 1)
        maps = Maps(self.directory, desk.ledger)
        left = [MappedLedger(self.directory, serial) for serial in (OLD_WORKER, OLD_DESK)]
        leftovers = Leftovers(
            self.directory, desk, Graveyard(self.directory, desk, maps), maps, Stored(Notifier())
        )
        watch(lambda: (told_by(desk.ledger), *map(told_by, left), lying(lane)))
        await leftovers.settle(died)

    async def next_start(self) -> None:
        """What the next supervisor does about it, with the house's desk."""
        maps = Maps(self.directory)
        leftovers = Leftovers(
            self.directory,
            self.home.desk,
            Graveyard(self.directory, self.home.desk, maps),
            maps,
            Stored(Notifier()),
        )
        await leftovers.settle(died)
        await self.home.settle()


def told_by(ledger: Ledger) -> tuple[bytes, bytes]:
    """What a ledger tells the next start: its header, the entries that are used here, and their store."""
    store, last = ledger.words[Word.STORE_AT], HEADER_SIZE + 16 * ENTRY_SIZE
    return bytes(ledger.view[:last]), bytes(ledger.view[store : store + 4096])


async def remembered(home: House) -> None:
    """What our code remembers of a first request, it remembers: from now on each process does the same steps."""
    past = Past(home, "first")
    past.fill()
    await past.next_start()
    home.ran.clear()


async def test_the_next_start_runs_what_a_dead_worker_had_not_started(home: House) -> None:
    past = Past(home, "past")
    past.fill()
    await past.next_start()
    assert sorted(home.ran) == past.replies
    assert home.answers == {}


async def test_leftovers_are_settled_by_one_at_a_time_however_long_a_connection_takes(home: House) -> None:
    """The supervisor looks at every tick, and a server may take two seconds to end an inherited connection."""
    past = Past(home, "past")
    past.fill()
    index = past.worker.receive_copy(frame(b"R.started"), 1)
    assert index is not None
    past.worker.start(index, 1 << 61, 1, b"R.started", b"i", b"t", 0, 1)
    maps = Maps(past.directory)
    leftovers = Leftovers(
        past.directory, home.desk, Graveyard(past.directory, home.desk, maps), maps, Stored(Notifier())
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        inherited = socket.create_connection(listening.getsockname())
        slow, _ = listening.accept()
    assert leftovers.inherit([(stored_name(Key(OLD_WORKER, 1)), inherited.detach())]) == []
    assert leftovers.due()
    first = asyncio.create_task(leftovers.settle(died))
    await until(lambda: b"R.started" in home.answers)
    assert not first.done()
    assert not leftovers.due()
    second = asyncio.create_task(leftovers.settle(died))
    await asyncio.sleep(0)
    slow.close()
    await asyncio.gather(first, second)
    await home.settle()
    assert sorted(home.ran) == past.replies
    assert home.answers == {b"R.started": ["worker died: here"]}
    assert not leftovers.due()


async def test_a_supervisor_killed_anywhere_in_a_takeover_loses_and_doubles_nothing(home: House) -> None:
    await remembered(home)
    wrong, changes = {}, [0]
    for kill_at in changes:
        home.ran.clear()
        past = Past(home, f"k{kill_at}")
        past.fill()
        changes += Killed(past.supervisor(), kill_at).changes
        await past.next_start()
        if sorted(home.ran) != past.replies:
            wrong[kill_at] = sorted(home.ran)
    assert len(changes) > 20
    assert wrong == {}


async def test_a_start_killed_anywhere_while_it_settles_what_two_others_left_loses_and_doubles_nothing(
    home: House,
) -> None:
    """One supervisor dies in the middle of a takeover, the next while it settles that: the third has it all."""
    await remembered(home)
    whole = Past(home, "whole")
    whole.fill()
    moves = Killed(whole.supervisor(), 0).changes
    wrong: dict[tuple[int, int], list[bytes]] = {}
    for first in (moves[len(moves) // 2], moves[-1]):
        settles = [0]
        for second in settles:
            home.ran.clear()
            past = Past(home, f"k{first}-{second}")
            past.fill()
            Killed(past.supervisor(), first)
            settles += Killed(past.successor(), second).changes
            await past.next_start()
            if sorted(home.ran) != past.replies:
                wrong[first, second] = sorted(home.ran)
        assert len(settles) > 20
    assert wrong == {}


async def test_what_a_dead_puller_had_started_is_not_run_again_by_the_next_start(home: House) -> None:
    """Its own entry says so before the word that frees the first owner's."""
    past = Past(home, "past")
    index = past.worker.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    past.worker.queue(index, 1)
    ledger_file.make(past.directory, GEOMETRY, Identity(3, 1, 1))
    puller = OwnedLedger(past.directory, 3)
    puller.start(puller.start_pulled(1), 1 << 61, 1, b"R.1", b"i", b"t", 0, 1, (OLD_WORKER, index, 1))
    await past.next_start()
    assert home.ran == []
    assert home.answers == {b"R.1": ["worker died: here"]}


async def test_what_a_dead_supervisor_spoke_for_but_did_not_answer_is_answered_by_the_next_start(
    home: House,
) -> None:
    past = Past(home, "past")
    index = past.worker.receive_copy(frame(b"R.1"), 1)
    assert index is not None
    past.worker.start(index, 1 << 61, 1, b"R.1", b"i", b"t", 0, 1)
    past.worker.say(index, 1)  # and it was killed before the answer left
    await past.next_start()
    assert home.answers == {b"R.1": ["worker died: here"]}


async def test_a_refusal_that_did_not_leave_is_answered_on_its_own_subject(home: House) -> None:
    past = Past(home, "past")
    earlier = past.worker.start_pulled(1)
    past.worker.start(earlier, 1, 1, b"R.earlier", b"i", b"t", 0, 1, (9, 9, 9))
    past.worker.answer(earlier)
    past.worker.release(earlier)
    index = past.worker.receive_copy(frame(b"R.refused"), 1)
    assert index == earlier
    past.worker.refuse(index, b"R.refused")
    assert past.worker.state(index)[1] == State.ANSWERED
    await past.next_start()
    assert set(home.answers) == {b"R.refused"}


async def test_an_entry_that_was_made_after_its_connection_was_taken_over_is_not_moved_again(
    home: House,
) -> None:
    """A worker that hung between reading and its ledger makes entries of what is moved already, and may die then."""
    ledger_file.make(home.directory, Geometry(16, 1 << 17, 4096), Identity(77, 0, 1))
    owner = OwnedLedger(home.directory, 77)
    chunk, data = Chunk(owner), frame(b"R.1")
    chunk.reset()
    chunk.space(0)[: len(data)] = data
    chunk.take(len(data))
    place = chunk.place()
    ledger = MappedLedger(home.directory, 77)
    assert await move_waiting(ledger, None, home.desk) == 1
    owner.receive(place, len(data), 1)
    await move_waiting(ledger, None, home.desk)
    await home.settle()
    assert home.ran == [b"R.1"]
