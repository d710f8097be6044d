"""Recovery of dead and of hanging workers at moments that meet: reconnects, deaths, a server that dies or is slow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from ajhost.adapters.fault_guard import Background
from ajhost.adapters.linux import processes, tcp
from ajhost.adapters.linux.channel import Channel, pair
from ajhost.adapters.linux.ledger_file import LockedLedger
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.timings import DEAD_DRAIN_LIMIT
from ajhost.ledger.layout import Word
from ajhost.ledger.queue_token import Token, token_places
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.protocol.frames import scan
from ajhost.roles.messages import FOR_WORKER, FromWorker, NewSocket, SocketStored, encode
from ajhost.roles.supervisor.fd_store import FdStore, Key, stored_name
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.recovery import procedure
from ajhost.roles.supervisor.worker_process import WorkerProcess
from tests.support.host_parts import GUARD, SUBJECT, Covered, HostParts, body, frame, recovery_of
from tests.support.nats import round_trip
from tests.support.peer_socket import Peer
from tests.support.proxy import Partition
from tests.support.waiting import until

CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
    b"SUB %b ajhost 1\r\nPING\r\n" % SUBJECT.encode()
)


class ScriptedWorker:
    """A worker's double: a child that does what a worker does with its connections, step by step at the test's word."""

    def __init__(self, parts: HostParts) -> None:
        self.owner = LockedLedger(parts.directory, parts.new_serial())
        self.chunk = ReceiveBuffer(self.owner)
        self.ours, theirs = pair()
        self.channel = Channel(theirs)
        self._told, self._tell = os.pipe()
        self._gate, self._open = os.pipe()
        self.pid = 0

    def begin(self, *steps: str, address: tuple[str, int] | None = None, sock: socket.socket | None = None) -> None:
        """Forks it. It waits before each step."""
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid:
            self.channel.close()
            return
        status = 1
        try:
            processes.die_with_parent(parent)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a worker writes its stacks
            self.ours.close()
            for step in [*steps, "hang"]:
                os.read(self._gate, 1)
                match step:
                    case "connect":
                        assert address is not None
                        sock = socket.create_connection(address)
                        self.chunk.reset()
                    case "reset":
                        self.chunk.reset()
                    case "pass":
                        assert sock is not None
                        epoch = self.owner.words[Word.EPOCH]
                        self.channel.send(encode(NewSocket(epoch)), [sock.fileno()])
                        received = self.channel.receive_wait(10)
                        assert received is not None
                        assert FOR_WORKER.decode(received[0]) == SocketStored(epoch)
                    case "subscribe":
                        assert sock is not None
                        self._subscribe(sock)
                    case "read half":
                        assert sock is not None
                        self.chunk.commit(sock.recv_into(self.chunk.free_space(0)[: len(frame(b"R.B.0")) * 3 // 2]))
                    case "read all":
                        assert sock is not None
                        self._read_all(sock)
                    case _:
                        time.sleep(60)
                os.write(self._tell, b".")
            status = 0
        finally:
            os._exit(status)

    def _subscribe(self, sock: socket.socket) -> None:
        sock.sendall(CONNECT)
        while b"PONG\r\n" not in (data := self.chunk.unconsumed()):
            self.chunk.commit(sock.recv_into(self.chunk.free_space(0)))
        self.chunk.consume(len(data))

    def _read_all(self, sock: socket.socket) -> None:
        """To the connection's end: what came waits in the store, like everything that a worker cannot start."""
        try:
            while count := sock.recv_into(self.chunk.free_space(0)):
                self.chunk.commit(count)
        except ConnectionResetError:
            pass
        data = self.chunk.unconsumed()
        for begin, _, _, end, _, _ in (found := scan(data)).messages:
            self.owner.receive_copy(data[begin:end], 1)
        self.chunk.consume(found.end)

    async def step(self) -> None:
        """Lets it do its next step, and waits until that is done."""
        os.write(self._open, b".")
        assert await asyncio.to_thread(os.read, self._told, 1) == b"."


class Store(FdStore):
    """Systemd's store, which has a duplicate of each connection."""

    def __init__(self) -> None:
        super().__init__(Notifier())
        self.given: dict[Key, tuple[socket.socket, int]] = {}

    def keep(self, key: Key, sock: socket.socket) -> None:
        """Puts a connection there."""
        super().keep(key, sock)
        self.given[key] = sock, os.dup(sock.fileno())


class RecoveryScene:
    """A member with its double, and the recovery."""

    def __init__(self, parts: HostParts, last_resort: LastResort | None = None) -> None:
        self.parts = parts
        self.stored = Store()
        self.background = Background(GUARD)
        self.recovery = recovery_of(parts.directory, parts.standby, self.stored, last_resort, self.background)
        self.double = ScriptedWorker(parts)
        self.kept: list[int] = []
        self.gone = asyncio.Event()

    def enlist(self) -> WorkerProcess:
        """The supervisor learns of the double."""
        owner, double = self.double.owner, self.double
        self.member = WorkerProcess(
            owner.serial,
            owner.slot,
            1,
            self.parts.directory,
            double.ours,
            self,
        )
        self.member.started(double.pid, os.pidfd_open(double.pid))
        return self.member

    def message_received(self, member: WorkerProcess, message: FromWorker) -> None:
        """The double says nothing else."""

    def connection_opened(self, member: WorkerProcess, sock: socket.socket) -> None:
        """Notes its epoch."""
        self.kept.append(member.epoch)

    def worker_died(self, member: WorkerProcess) -> None:
        """It is gone."""
        self.gone.set()

    async def recover_dead(self) -> None:
        """What the supervisor does when it learns of the death."""
        await self.gone.wait()
        await self.recovery.recover_dead(self.member, "SIGKILL")

    async def asked(self, batch: str, count: int = 3) -> list[bytes]:
        """Requests that go to the double's subscription; their reply subjects."""
        replies = [f"R.{batch}.{i}" for i in range(count)]
        for reply in replies:
            await self.parts.client.publish(SUBJECT, body(0), reply)
        await round_trip(self.parts.client)
        return [reply.encode() for reply in replies]


RECONNECT = ("connect", "pass", "subscribe", "read all", "connect", "pass", "subscribe", "read half")
MOMENTS = {
    "before it saw the end of the old one": 3,
    "before the new one": 4,
    "before it was passed": 5,
    "before it subscribed": 6,
    "before it read": 7,
    "in the middle of a frame": 8,
}


async def _at(parts: HostParts, partition: Partition, moment: str) -> tuple[RecoveryScene, list[bytes]]:
    """A double that connected, was sent requests, lost its connection, and has come so far in a reconnect."""
    scene = RecoveryScene(parts)
    port = int(partition.url.rpartition(":")[2])
    scene.double.begin(*RECONNECT, address=("127.0.0.1", port))
    member = scene.enlist()
    member.hangs = True
    for _ in range(3):
        await scene.double.step()
    await until(lambda: scene.kept == [1])
    requests = await scene.asked("A")
    size = sum(len(frame(reply)) for reply in requests)
    sock = member.sock
    assert sock is not None
    await until(lambda: tcp.unread(sock) >= size)
    await partition.cut()
    for done in range(3, MOMENTS[moment]):
        await scene.double.step()
        if RECONNECT[done] == "subscribe":
            requests += await scene.asked("B")
    return scene, requests


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_worker_that_dies_at_any_moment_of_a_reconnect_loses_and_doubles_nothing(
    parts: HostParts, moment: str
) -> None:
    async with Partition(parts.server.port) as partition:
        scene, requests = await _at(parts, partition, moment)
        os.kill(scene.double.pid, signal.SIGKILL)
        await scene.recover_dead()
        await parts.settle()
        assert sorted(parts.ran) == sorted(requests)
        assert parts.answers == {}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_worker_that_hangs_at_any_moment_of_a_reconnect_keeps_only_what_nobody_took(
    parts: HostParts, moment: str
) -> None:
    async with Partition(parts.server.port) as partition:
        scene, requests = await _at(parts, partition, moment)
        await scene.recovery.recover_hung(scene.member)
        # the rest of a connection that its server does not end in time is read in the background
        await until(lambda: not scene.background.tasks)
        await parts.settle()
        assert sorted(parts.ran) == sorted(requests)
        words = scene.member.ledger.words
        if moment == "before it was passed":
            # nobody took the connection that it is about to pass, and it goes on with it
            assert words[Word.FENCED_EPOCH] != words[Word.EPOCH] == 2
            for _ in range(2):
                await scene.double.step()
            requests += await scene.asked("C")
        else:
            assert words[Word.FENCED_EPOCH] == words[Word.DRAINED_EPOCH] == words[Word.EPOCH]
        os.kill(scene.double.pid, signal.SIGKILL)
        await scene.recover_dead()
        await parts.settle()
        assert sorted(parts.ran) == sorted(requests)


@pytest.fixture
def no_descriptors() -> Callable[[], AbstractContextManager[None]]:
    """A time in which this process has no free descriptor."""

    @contextlib.contextmanager
    def without() -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        # the lowest number that is free, so that the next one fails
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    return without


# --- a peer that holds back what the server would send


async def _hung(parts: HostParts, peer: Peer, last_resort: LastResort | None = None) -> RecoveryScene:
    """A double on a connection to the peer, which has passed it and hangs."""
    scene = RecoveryScene(parts, last_resort)
    scene.double.begin("reset", "pass", sock=peer.theirs)
    scene.enlist().hangs = True
    for _ in range(2):
        await scene.double.step()
    return scene


async def test_a_dead_worker_stays_in_the_group_until_somebody_else_is_there_and_what_comes_is_moved_at_once(
    parts: HostParts,
) -> None:
    there, asked = asyncio.Event(), asyncio.Event()

    class Coming(Covered):
        async def subscribe_if_last(self, patience: float | None) -> None:
            assert patience is None
            asked.set()
            await there.wait()

    with Peer() as peer:
        scene = await _hung(parts, peer, Coming())
        peer.send(frame(b"R.0"))
        os.kill(scene.double.pid, signal.SIGKILL)
        death = asyncio.create_task(scene.recover_dead())
        await asked.wait()
        peer.send(frame(b"R.1"))
        parts.consumer.begin()
        await until(lambda: sorted(parts.ran) == [b"R.0", b"R.1"])
        ended = asyncio.create_task(peer.ended())
        await asyncio.sleep(0.05)
        assert not ended.done(), "its server would tell routers that nobody serves"
        there.set()
        assert await ended == b""
        peer.send(frame(b"R.2"))
        peer.close()
        await death
        await parts.settle()
        assert sorted(parts.ran) == [b"R.0", b"R.1", b"R.2"]


ENDS = {
    "in order": False,
    "with something unread": True,
    "before it was asked to": True,
    "in order, and dies": True,
}


@pytest.mark.parametrize("end", ENDS)
async def test_what_a_dead_worker_had_sent_is_answered_unless_its_server_has_certainly_passed_it_on(
    parts: HostParts, end: str
) -> None:
    waits = asyncio.Event()

    def repeated() -> bool:
        parts.standby.beat(time.monotonic_ns())
        return bool(parts.answers)

    class Coming(Covered):
        async def subscribe_if_last(self, patience: float | None) -> None:
            waits.set()
            if end == "before it was asked to":
                await asyncio.Event().wait()

    with Peer() as peer:
        scene = await _hung(parts, peer, Coming())
        owner = scene.double.owner
        index = owner.receive(owner.chunk_at, 0, 1)
        owner.start(index, 1, b"R.0", b"id", b"t", 0, 1)
        owner.answer(index)
        owner.sent([index])
        os.kill(scene.double.pid, signal.SIGKILL)
        death = asyncio.create_task(scene.recover_dead())
        if end == "before it was asked to":
            await waits.wait()
        else:
            await peer.ended()
        if end == "in order, and dies":
            await parts.server.stand_still()
        if end == "with something unread":
            peer.reset()  # as a kernel does for a process that left something unread
        else:
            peer.close()
        await death
        if end == "in order, and dies":
            await parts.server.restart()
            # whoever waits for it is back later than we are, and it is repeated until then
            await until(repeated)
        await parts.settle()
        assert list(parts.answers) == ([b"R.0"] if ENDS[end] else [])
        if end != "in order, and dies":  # where it is repeated
            assert {len(texts) for texts in parts.answers.values()} <= {1}


async def test_a_hanging_worker_that_does_not_stop_in_time_is_relieved_later(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that does not let it run at all: no signal takes effect before it does."""
    stop, tried = processes.stop, []

    def late(pidfd: int, pid: int, timeout: float) -> processes.StopResult:
        tried.append(timeout)
        return processes.StopResult.TIMEOUT if len(tried) == 1 else stop(pidfd, pid, timeout)

    monkeypatch.setattr(processes, "stop", late)
    with Peer() as peer:
        scene = await _hung(parts, peer)
        peer.send(frame(b"R.0"))
        relief = asyncio.create_task(scene.recovery.recover_hung(scene.member))
        await peer.ended()
        peer.close()
        await relief
        os.kill(scene.double.pid, signal.SIGKILL)
        await scene.gone.wait()
    await parts.settle()
    assert parts.ran == [b"R.0"]
    assert len(tried) == 2


async def test_a_hanging_worker_killed_while_it_is_relieved_is_buried_after_that(parts: HostParts) -> None:
    with Peer() as peer:
        scene = await _hung(parts, peer)
        replies = [b"R.%d" % i for i in range(3)]
        data = b"".join(map(frame, replies))
        peer.send(data[:100])
        relief = asyncio.create_task(scene.recovery.recover_hung(scene.member))
        await peer.ended()
        os.kill(scene.double.pid, signal.SIGKILL)
        death = asyncio.create_task(scene.recover_dead())
        await scene.gone.wait()
        await asyncio.sleep(0)
        scene.recovery.retired.tick(time.monotonic_ns())
        peer.send(data[100:])
        peer.close()
        await asyncio.gather(relief, death)
        await parts.settle()
        assert sorted(parts.ran) == replies
        scene.recovery.retired.tick(time.monotonic_ns())
        assert not scene.recovery.retired.ledgers


async def _relieved_from(parts: HostParts, peer: Peer, data: bytes) -> RecoveryScene:
    """A hanging worker that was relieved, and whose server has sent this much, and does not end its connection."""
    scene = await _hung(parts, peer)
    peer.send(data)
    # its worker stands still meanwhile: as long as a dead one's connection is read would be too long
    await asyncio.wait_for(scene.recovery.recover_hung(scene.member), DEAD_DRAIN_LIMIT / 10)
    assert await peer.ended() == b""
    return scene


async def test_a_worker_is_relieved_although_its_server_is_cut_off_and_nothing_is_lost(
    parts: HostParts,
) -> None:
    replies = [b"R.%d" % i for i in range(5)]
    data = b"".join(map(frame, replies))
    with Peer() as peer:
        scene = await _relieved_from(parts, peer, data[:150])
        # it goes on, and has another connection
        words = scene.member.ledger.words
        assert words[Word.FENCED_EPOCH] == words[Word.DRAINED_EPOCH] == words[Word.EPOCH] == 1
        scene.recovery.retired.tick(time.monotonic_ns())
        assert len(scene.recovery.retired.ledgers) == 1, "the rest has one of its own"
        peer.send(data[150:])
        peer.close()
        await asyncio.gather(*scene.background.tasks)
    await parts.settle()
    assert sorted(parts.ran) == replies
    scene.recovery.retired.tick(time.monotonic_ns())
    assert scene.recovery.retired.ledgers == []
    os.kill(scene.double.pid, signal.SIGKILL)
    await scene.recover_dead()
    assert sorted(parts.ran) == replies


async def test_the_next_start_goes_on_with_what_a_cut_off_server_had_for_a_hanging_worker(
    parts: HostParts,
) -> None:
    replies = [b"R.%d" % i for i in range(5)]
    data = b"".join(map(frame, replies))
    with Peer() as peer:
        scene = await _relieved_from(parts, peer, data[:150])
        ((key, (rest, kept)),) = scene.stored.given.items()
        for task in scene.background.tasks:  # its supervisor is killed
            task.cancel()
        await asyncio.gather(*scene.background.tasks, return_exceptions=True)
        rest.close()
        next_start = recovery_of(parts.directory, parts.standby, Store())
        assert next_start.previous_start.connections.take_stored([(stored_name(key), kept)]) == []
        rescue = asyncio.create_task(next_start.recover_previous_start())
        peer.send(data[150:])
        peer.close()
        await rescue
        os.kill(scene.double.pid, signal.SIGKILL)
        await scene.gone.wait()
    await parts.settle()
    assert sorted(parts.ran) == replies


async def test_a_server_that_dies_in_the_middle_of_a_takeover_leaves_what_it_had_sent_whole(
    parts: HostParts,
) -> None:
    with Peer() as peer:
        scene = await _hung(parts, peer)
        replies = [b"R.%d" % i for i in range(4)]
        data = b"".join(map(frame, replies))
        peer.send(data[:100])
        os.kill(scene.double.pid, signal.SIGKILL)
        death = asyncio.create_task(scene.recover_dead())
        await peer.ended()
        peer.send(data[100:-5])
        peer.reset()
        await death
        await parts.settle()
        assert sorted(parts.ran) == replies[:3]
        assert parts.answers == {}


async def test_what_a_cut_off_server_has_for_a_dead_worker_is_waited_for(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procedure, "DEAD_DRAIN_LIMIT_STOPPING", 0.1)
    with Peer() as peer, Peer() as silent:
        scene, other = await _hung(parts, peer), await _hung(parts, silent)
        for one in (scene, other):
            os.kill(one.double.pid, signal.SIGKILL)
        deaths = [asyncio.create_task(one.recover_dead()) for one in (scene, other)]
        await peer.ended()
        await silent.ended()
        # longer than anybody waits who is waited for
        assert not (await asyncio.wait(deaths, timeout=2.1))[0]
        peer.send(frame(b"R.late"))
        peer.close()
        await deaths[0]
        await parts.settle()
        assert parts.ran == [b"R.late"]
        # but not when the host stops
        other.recovery.shorten_waits()
        await asyncio.wait_for(deaths[1], 60)


async def test_what_waits_in_a_dead_workers_ledger_is_refused_in_time_though_its_server_is_cut_off(
    parts: HostParts,
) -> None:
    """Its token lies in the shared queue, no worker becomes free, and the connection is still being drained."""
    with Peer() as silent:
        scene = await _hung(parts, silent)
        owner = scene.double.owner
        index = owner.receive_copy(frame(b"R.0"), 1)
        assert index is not None
        deadline_ns = time.monotonic_ns() + 100_000_000
        owner.set_deadline(index, deadline_ns)
        owner.queue(index, owner.state(index)[0])
        os.kill(scene.double.pid, signal.SIGKILL)
        death = asyncio.create_task(scene.recover_dead())
        await silent.ended()
        scene.recovery.tick(deadline_ns + 1)
        await until(lambda: parts.answers)
        assert parts.answers == {b"R.0": ["deadline exceeded: no worker became free in time"]}
        scene.recovery.shorten_waits()
        silent.close()
        await death
    assert parts.ran == []


async def test_a_takeover_for_which_there_is_no_descriptor_left_is_tried_again_with_the_same_connection(
    parts: HostParts, no_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    pushing = LockedLedger(parts.directory, parts.new_serial())
    index = pushing.receive_copy(frame(b"R.token"), 1)
    assert index is not None
    pushing.queue(index, 1)
    with Peer() as peer:
        scene = await _hung(parts, peer)
        token_places(scene.double.owner)[0][:] = Token(pushing.serial, index, 1, 1 << 61).pack()
        words = scene.member.ledger.words
        peer.send(frame(b"R.0"))
        with no_descriptors():
            relief = asyncio.create_task(scene.recovery.recover_hung(scene.member))
            await until(lambda: GUARD.failures["taking over a hanging worker"])
            assert words[Word.FENCED_EPOCH] != words[Word.EPOCH], "it may go on"
            assert scene.member.sock is not None
        await peer.ended()
        peer.close()
        await relief
        os.kill(scene.double.pid, signal.SIGKILL)
        await scene.gone.wait()
    await parts.settle()
    assert sorted(parts.ran) == [b"R.0", b"R.token"]
