"""Takeover of real connections: whatever a killed process had received, recorded or begun runs once or is answered."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from ajhost.adapters.linux import ledger_file, processes, tcp
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.core.recovery_rules import USUALLY, Fact
from ajhost.ledger.layout import Geometry, Identity, Word
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.protocol.frames import scan
from ajhost.roles.supervisor.recovery.remains import Remains
from tests.support.host_parts import SUBJECT, HostParts, body, frame
from tests.support.nats import round_trip
from tests.support.waiting import until

COUNT = 4
CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
    b"SUB %b ajhost 1\r\nPING\r\n" % SUBJECT.encode()
)
STEPS = ("unrecorded", "recorded", "entered", "done", "started")


class ForkedWorker:
    """A child that subscribes on a connection of its own and, when told, takes `size` bytes and goes as far as `step`.

    It then waits; `sock` is the duplicate that its supervisor has.
    """

    def __init__(self, parts: HostParts, size: int, step: str) -> None:
        self.parts = parts
        self.serial = parts.new_serial()
        self.sock = socket.create_connection(("127.0.0.1", parts.server.port))
        self._reader, writer = os.pipe()
        gate, self._gate = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                # a test that fails leaves nobody behind who holds its output
                processes.die_with_parent(parent)
                self._live(size, step, writer, gate)
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        os.close(gate)

    def _live(self, size: int, step: str, writer: int, gate: int) -> None:
        owner = LockedLedger(self.parts.directory, self.serial)
        buffer, sock = ReceiveBuffer(owner), self.sock
        buffer.reset()
        sock.sendall(CONNECT)
        while b"PONG\r\n" not in (data := buffer.unconsumed()):
            buffer.commit(sock.recv_into(buffer.free_space(0)))
        buffer.consume(len(data))
        os.write(writer, b".")
        os.read(gate, 1)
        left = size
        while left:
            count = sock.recv_into(buffer.free_space(0)[:left])
            left -= count
            if step != "unrecorded" or left:
                buffer.commit(count)
        batch = []
        if step not in ("unrecorded", "recorded"):
            found = scan(buffer.unconsumed())
            place = buffer.place()
            batch = [(owner.receive(place + m[0], m[3] - m[0], 1), m[5]) for m in found.messages]
            if step != "entered":
                buffer.consume(found.end)
            if step == "started" and batch:
                owner.start(batch[0][0], 1, batch[0][1], b"i", b"t", 0, 1)
        os.write(writer, b".")
        os.read(gate, 1)
        # it goes on after a hang
        mine = [owner.start(index, 1, reply, b"", b"", 0, 1) for index, reply in batch]
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
    parts: HostParts, size: int, step: str, number: int, padding: int = 0
) -> tuple[ForkedWorker, list[bytes]]:
    """A worker at its step, with `COUNT` requests sent to it by the server; their reply subjects."""
    worker = ForkedWorker(parts, size, step)
    assert await worker.told() == b".", "it could not subscribe"
    replies = [b"R.%d.%d" % (number, i) for i in range(COUNT)]
    for reply in replies:
        await parts.client.publish(SUBJECT, body(0, padding), reply.decode())
    await round_trip(parts.client)
    if not padding:
        total = sum(len(frame(reply)) for reply in replies)
        await until(lambda: tcp.unread(worker.sock) >= total)
        if tcp.unread(worker.sock) > total:  # the server's first PING, a second or two after we came
            worker.kill()
            worker.close()
            worker.sock.close()
            return await handed_over(parts, size, step, number)
    worker.go_on()
    assert await worker.told() == b".", "it died by itself"
    return worker, replies


async def taken_over(parts: HostParts, worker: ForkedWorker, facts: Fact = USUALLY) -> int:
    ledger = MappedLedger(parts.directory, worker.serial)
    remains = Remains(ledger, facts, sock=worker.sock)
    await parts.recover(remains)
    ledger.close()
    return remains.answered


@pytest.mark.parametrize("step", STEPS)
async def test_a_worker_killed_at_every_cut_of_its_stream_loses_and_doubles_nothing(
    parts: HostParts, step: str
) -> None:
    one = len(frame(b"R.00.0"))
    # each end of a frame, the bytes around it, and places within lines and bodies
    cuts = sorted({0, 1, 2, 10, 30, one // 2, *(k * one + d for k in (1, 2) for d in (-2, -1, 0, 1, 20))})
    for number, size in enumerate([*cuts, COUNT * one], start=10):
        parts.ran.clear()
        parts.answers.clear()
        worker, replies = await handed_over(parts, size, step, number)
        worker.kill()
        answered = await taken_over(parts, worker)
        worker.close()
        await parts.settle()
        assert answered == (step == "started" and size >= one)
        assert sorted(parts.ran) == replies[answered:], size
        assert parts.answers == {reply: ["worker died: here"] for reply in replies[:answered]}, size
        assert worker.sock.fileno() < 0, "the inherited connection is closed"
        assert not parts.standby.ledger.in_use()


@pytest.mark.parametrize("size", [0, 5, 30_000, 60_000])
@pytest.mark.parametrize("step", STEPS[:4])
async def test_frames_that_do_not_fit_what_is_left_of_the_chunk_are_moved_whole(
    parts: HostParts, step: str, size: int
) -> None:
    worker, replies = await handed_over(parts, size, step, 1, padding=28_000)
    worker.kill()
    await taken_over(parts, worker)
    worker.close()
    await parts.settle()
    assert sorted(parts.ran) == replies


@pytest.mark.parametrize("step", STEPS[:4])
async def test_a_hanging_worker_that_goes_on_finds_that_nothing_is_its_own_any_more(
    parts: HostParts, step: str
) -> None:
    size = 2 * len(frame(b"R.1.0")) + 20
    worker, replies = await handed_over(parts, size, step, 1)
    os.kill(worker.pid, signal.SIGSTOP)
    os.waitpid(worker.pid, os.WUNTRACED)
    assert await taken_over(parts, worker, Fact.OWNER_STOPPED) == 0
    os.kill(worker.pid, signal.SIGCONT)
    worker.go_on()
    assert await worker.told(4) == b"none"
    os.waitpid(worker.pid, 0)
    worker.close()
    ledger = MappedLedger(parts.directory, worker.serial)
    assert ledger.words[Word.FENCED_EPOCH] == ledger.words[Word.EPOCH] == 1
    await parts.settle()
    assert sorted(parts.ran) == replies


async def test_a_connection_is_taken_over_once(parts: HostParts) -> None:
    worker, replies = await handed_over(parts, 50, "recorded", 1)
    worker.kill()
    await taken_over(parts, worker)
    ledger = MappedLedger(parts.directory, worker.serial)
    again = Remains(ledger)
    await parts.recover(again)
    assert again.requeued == 0
    worker.close()
    await parts.settle()
    assert sorted(parts.ran) == replies


async def test_a_server_that_is_gone_leaves_what_had_come(parts: HostParts) -> None:
    size = 2 * len(frame(b"R.1.0"))
    worker, replies = await handed_over(parts, size, "recorded", 1)
    await parts.server.kill()
    worker.kill()
    await taken_over(parts, worker)
    worker.close()
    parts.consumer.begin()
    await until(lambda: sorted(parts.ran) == replies)
    await parts.server.start()


async def test_an_entry_that_was_made_after_its_connection_was_taken_over_is_not_moved_again(
    parts: HostParts,
) -> None:
    """A worker that hung between reading and its ledger makes entries of what is moved already, and may die then."""
    ledger_file.make(parts.directory, Geometry(16, 1 << 17, 4096), Identity(77, 0, 1))
    owner = LockedLedger(parts.directory, 77)
    buffer, data = ReceiveBuffer(owner), frame(b"R.1")
    buffer.reset()
    buffer.free_space(0)[: len(data)] = data
    buffer.commit(len(data))
    place = buffer.place()
    ledger = MappedLedger(parts.directory, 77)
    first = Remains(ledger)
    await parts.recover(first)
    assert first.requeued == 1
    owner.receive(place, len(data), 1)
    await parts.recover(Remains(ledger))
    await parts.settle()
    assert parts.ran == [b"R.1"]
