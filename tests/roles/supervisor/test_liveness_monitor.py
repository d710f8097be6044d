"""The liveness monitor on a real process that beats and leaves unread what its server sends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from ajhost.core.timings import UNSUBSCRIBED_LIMIT
from ajhost.ledger.connection_status import ConnectionState
from ajhost.ledger.layout import DEADLINE, FIRST, Phase, State, Word
from ajhost.roles.supervisor.liveness_monitor import LivenessMonitor
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.sections import WorkerSettings
from tests.roles.supervisor.recovery.test_procedure import RecoveryScene
from tests.support.host_parts import GUARD, HostParts
from tests.support.waiting import until

LIMIT = 2.0


class WatchedWorker:
    """A worker's double that connected and subscribed, and the monitor that watches it."""

    def __init__(self, parts: HostParts) -> None:
        self.scene = RecoveryScene(parts)
        self.monitor = LivenessMonitor(parts.standby, GUARD, self.hang_began, self.hang_ended)
        self.hung: list[float] = []
        self.recovered: list[float] = []
        self.looks: list[tuple[float, float]] = []
        """When the monitor looked: before it began and after it had ended."""

    def hang_began(self, worker: WorkerProcess) -> None:
        """Notes when."""
        self.hung.append(time.monotonic())

    def hang_ended(self, worker: WorkerProcess) -> None:
        """Notes when."""
        self.recovered.append(time.monotonic())

    async def connect(self, port: int) -> WorkerProcess:
        double = self.scene.double
        double.begin("connect", "pass", "subscribe", address=("127.0.0.1", port))
        worker = self.scene.enlist()
        for _ in range(3):
            await double.step()
        await until(lambda: worker.sock is not None)
        self.words = double.owner.words
        self.words[Word.PHASE], self.words[Word.CONNECTION] = Phase.SERVING, ConnectionState.SUBSCRIBED
        self.words[Word.SOCKET] = 3
        return worker

    async def end(self, worker: WorkerProcess) -> None:
        os.kill(self.scene.double.pid, signal.SIGKILL)
        await self.scene.gone.wait()
        if worker.sock is not None:
            worker.sock.close()

    async def check(self, worker: WorkerProcess, seconds: float) -> None:
        """Ticks, while the double's loop seems to turn."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.hung:
            self.words[Word.HEARTBEAT] = time.monotonic_ns()
            before = time.monotonic()
            self.monitor.check([worker], WorkerSettings().kill_grace, 10.0, 0.0)
            self.looks.append((before, time.monotonic()))
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def watching(parts: HostParts) -> AsyncIterator[tuple[WatchedWorker, WorkerProcess]]:
    """A watch of a worker that is connected. It ends with the block."""
    watch = WatchedWorker(parts)
    worker = await watch.connect(parts.server.port)
    try:
        yield watch, worker
    finally:
        await watch.end(worker)


@pytest.mark.parametrize(
    ("paused", "asked", "open_", "hangs"),
    [
        (False, True, True, True),
        (True, True, True, False),
        (False, False, True, False),
        (False, True, False, False),
    ],
    ids=["it does not read", "it has no free entry", "there is nothing to read", "it gave the connection up"],
)
async def test_a_worker_that_beats_hangs_only_if_it_leaves_unread_what_it_has_room_for(
    parts: HostParts, paused: bool, asked: bool, open_: bool, hangs: bool
) -> None:
    async with watching(parts) as (watch, worker):
        watch.words[Word.READING_PAUSED] = paused
        if not open_:
            watch.words[Word.SOCKET] = 0
        if asked:
            await watch.scene.asked("A")
        await watch.check(worker, LIMIT)
        assert bool(watch.hung) is hangs
        assert worker.hangs is hangs


async def test_a_worker_that_is_out_of_the_queue_group_hangs_only_while_somebody_else_is_connected(
    parts: HostParts,
) -> None:
    async with watching(parts) as (watch, worker):
        watch.words[Word.READING_PAUSED] = 1
        watch.words[Word.CONNECTION] = ConnectionState.WAITING
        await watch.check(worker, 30.0)
        (first, known), (last, _) = watch.looks[0], watch.looks[-2]
        assert watch.hung[0] - first >= UNSUBSCRIBED_LIMIT
        assert last - known < UNSUBSCRIBED_LIMIT, "the first look after that finds it"
        # it recovers when it is there again
        watch.words[Word.CONNECTION] = ConnectionState.SUBSCRIBED
        watch.hung.clear()
        await watch.check(worker, 0.2)
        assert watch.recovered


async def test_a_worker_that_the_server_locks_out_does_not_hang(parts: HostParts) -> None:
    """By a connection limit or a password: the next worker would be locked out too, and this one has replies left."""
    async with watching(parts) as (watch, worker):
        watch.words[Word.READING_PAUSED] = 1
        watch.words[Word.CONNECTION] = ConnectionState.LOCKED_OUT
        await watch.check(worker, 4.0)
        assert not watch.hung


async def test_a_hanging_worker_counts_as_killed_when_it_is_and_not_when_it_is_asked_for_its_stacks(
    parts: HostParts,
) -> None:
    """Otherwise a stop that comes between the two waits for a process that nobody has killed."""
    watch = WatchedWorker(parts)
    worker = await watch.connect(parts.server.port)
    kill_grace = 0.0
    watch.words[Word.HEARTBEAT] = time.monotonic_ns()
    asked = False
    while not worker.killed_at:
        watch.monitor.check([worker], kill_grace, 10.0, 0.0)
        hang = watch.monitor._watched[worker.serial].hang
        asked = asked or (hang is not None and bool(hang.stacks_at) and not worker.killed_at)
        await asyncio.sleep(0.02)
    assert asked
    await watch.scene.gone.wait()
    assert worker.sock is not None
    worker.sock.close()


async def test_a_worker_that_wakes_from_a_long_hang_has_the_whole_time_to_connect_and_to_subscribe(
    parts: HostParts,
) -> None:
    """Its connection was taken over meanwhile: it could not be in the queue group, and has answers to send."""
    kill_grace = 60.0
    async with watching(parts) as (watch, worker):
        watch.words[Word.READING_PAUSED] = 1
        watch.words[Word.HEARTBEAT] = time.monotonic_ns()
        watch.words[Word.CONNECTION] = ConnectionState.WAITING
        while not watch.hung:
            watch.monitor.check([worker], kill_grace, 10.0, 0.0)
            await asyncio.sleep(0.05)
        sock = worker.take_socket()
        watch.monitor.check([worker], kill_grace, 10.0, 0.0)
        # a moment ahead, so that it is no old one however slow this process is
        watch.words[Word.HEARTBEAT] = time.monotonic_ns() + 800_000_000
        watch.monitor.check([worker], kill_grace, 10.0, 0.0)
        membership = watch.monitor._watched[worker.serial].membership
        assert membership.outside_since_ns > watch.hung[0] * 1e9
        membership.outside_since_ns = 1  # as if it had not connected for longer than it may
        watch.words[Word.EPOCH] += 1
        watch.monitor.check([worker], kill_grace, 10.0, 0.0)
        assert len(watch.hung) == 1
        assert not watch.recovered
        if sock is not None:
            sock.close()


async def test_a_hanging_worker_whose_last_task_ends_is_killed_the_kill_grace_after_that(
    parts: HostParts,
) -> None:
    """It is about to write its heartbeat and to send the answer."""
    kill_grace = 1.0
    async with watching(parts) as (watch, worker):
        watch.words[Word.READING_PAUSED] = 1
        watch.words[Word.HEARTBEAT] = time.monotonic_ns()
        watch.words[FIRST + DEADLINE] = time.monotonic_ns() + 60_000_000_000
        watch.words[FIRST], watch.words[Word.HIGH_WATER] = 1 << 8 | State.STARTED, 1
        while not watch.hung or time.monotonic() - watch.hung[0] < kill_grace + 0.2:
            ran = time.monotonic()
            watch.monitor.check([worker], kill_grace, 10.0, 0.0)
            await asyncio.sleep(0.05)
        watch.words[FIRST] = 1 << 8 | State.ANSWERED
        hang = watch.monitor._watched[worker.serial].hang
        assert hang is not None
        while not hang.stacks_at:
            watch.monitor.check([worker], kill_grace, 10.0, 0.0)
            await asyncio.sleep(0.02)
        assert hang.stacks_at >= ran + kill_grace
