"""The parts of a host around a worker: ledgers, queues, a standby on a real server, and a client of answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from ajhost.adapters.fault_guard import Background, FaultGuard
from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import LockedLedger
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.fleet import Fleet
from ajhost.core.host_counters import Counters
from ajhost.core.poison_tasks import PoisonTasks
from ajhost.ledger.layout import Geometry, Identity
from ajhost.ledger.view import Entry
from ajhost.protocol.frames import scan
from ajhost.protocol.outcome import Failed
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Consumer, Origin
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.shared_queue.producer import Producer
from ajhost.roles.shared_queue.token_queues import DEFAULT, TokenQueue, open_queue
from ajhost.roles.supervisor.fd_store import FdStore
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.recovery.procedure import Recovery
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby
from ajhost.settings.sections import (
    HandlerSettings,
    NatsSettings,
    PythonSettings,
    WorkerSettings,
)
from tests.support.nats import NatsServer, round_trip
from tests.support.waiting import until

GEOMETRY = Geometry(64, 1 << 17, 1 << 16)
SUBJECT = "CHORIA_AJ.H.T.t"
FAR = 1 << 61
"""A deadline that never comes, in nanoseconds."""
STANDBY = 1 << 30
CONSUMER = 1 << 29


def body(number: int, size: int = 0) -> bytes:
    """A task's JSON, `size` bytes longer than it must be."""
    return b'{"id":"%d","type":"t","queue":"Q","payload":"%b"}' % (number, b"AAAA" * (size // 4))


def frame(reply: bytes, number: int = 0, padding: int = 0) -> bytes:
    """A request as a server sends it."""
    task = body(number, padding)
    return b"MSG %b 1 %b %d\r\n%b\r\n" % (SUBJECT.encode(), reply, len(task), task)


class DiedHere(PoisonTasks):
    """Tells the same of each request whose worker died."""

    def outcome(self, entry: Entry, how: str) -> Failed:
        """What is told."""
        return Failed("worker died: here")


DIED = DiedHere([])
GUARD = FaultGuard(logging.getLogger("test"))


class Covered(LastResort):
    """Somebody else serves, so the standby need not be subscribed."""

    def __init__(self) -> None:
        pass

    async def subscribe_if_last(self, patience: float | None) -> None:
        """Nobody is the last."""


def recovery_of(
    directory: Path,
    standby: Standby,
    fd_store: FdStore | None = None,
    last_resort: LastResort | None = None,
    background: Background | None = None,
) -> Recovery:
    """The recovery of a supervisor with this standby."""
    return Recovery(
        directory, standby, fd_store or FdStore(Notifier()), DIED, Counters(), GUARD,
        Fleet(1 << 20), last_resort or Covered(), background or Background(GUARD),
    )  # fmt: skip


class HostParts:
    """The parts of a host around a worker. `ran`: the reply subjects of what its own consumer started."""

    def __init__(self, server: NatsServer, directory: Path, queues: tuple[str, ...] = (DEFAULT,)) -> None:
        self.server = server
        self.runtime = directory
        self.directory = directory / "ledger"
        self.directory.mkdir()
        self.queues: list[TokenQueue] = [open_queue(name) for name in queues]
        self.plan = GenerationSpec(
            1,
            directory,
            NatsSettings(servers=(server.url,)),
            PythonSettings(),
            WorkerSettings(count=1),
            (HandlerSettings("t", "m:f"),),
        )
        self.ledgers = LedgerCache(self.directory)
        self.ran: list[bytes] = []
        self.answers: dict[bytes, list[str]] = {}
        self.room = True
        self._serial = 0

    async def __aenter__(self) -> Self:
        self.standby = Standby(self.plan, STANDBY, self.queues, 1 << 16, FdStore(Notifier()))
        await self.standby.connection.connect()
        self.client: Client = await nats.connect(self.server.url)
        await self.client.subscribe("R.>", cb=self._answered)
        await round_trip(self.client)
        ledger_file.make(self.directory, GEOMETRY, Identity(CONSUMER, 0, 1))
        self._own = LockedLedger(self.directory, CONSUMER)
        self.consumer = Consumer(
            self._own,
            self.directory,
            self.queues,
            asyncio.get_running_loop(),
            lambda queue: self.room,
            self.started,
            self._resumed,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.consumer.end()
        await self.client.close()
        await self.standby.connection.close()
        for queue in self.queues:
            queue.close()

    async def recover(self, *remains: Remains) -> None:
        """What the supervisor does about processes that cannot answer."""
        await recovery_of(self.directory, self.standby).recover(*remains)

    def new_serial(self) -> int:
        """The ledger file of a new process."""
        self._serial += 1
        ledger_file.make(self.directory, GEOMETRY, Identity(self._serial, self._serial, 1))
        return self._serial

    def _resumed(self, claimed: ClaimedRequest) -> None:
        raise AssertionError("this consumer has no requests of its own")

    def started(self, data: bytes, claimed: ClaimedRequest) -> None:
        """Starts what was pulled, and is done with it at once."""
        reply = scan(data).messages[0][5]
        index = self._own.start_pulled(1)

        def enter(origin: Origin) -> bool:
            return self._own.start(index, 1, reply, b"", b"", 0, 1, origin)

        if claimed.begin(enter):
            self.ran.append(reply)
        self._own.release(index)

    async def _answered(self, message: Msg) -> None:
        headers = message.headers or {}
        text = headers.get("AJ-Error") or headers.get("AJ-Terminate") or ""
        self.answers.setdefault(message.subject.encode(), []).append(text)

    async def settle(self) -> None:
        """Returns when the queues are empty, the standby's answers have come, and its ledger is swept."""
        self.consumer.begin()
        await until(lambda: not self.waiting())
        self.consumer.end()
        self.standby.beat(time.monotonic_ns())
        await until(self._told)
        await round_trip(self.client)

    def _told(self) -> bool:
        """Whether the server has what the standby answered."""
        out = self.standby.transport.out
        out.confirm()
        return not (out.unsent or out.retransmit.unconfirmed)

    def waiting(self) -> bool:
        """Whether a token lies in a queue or is undecided."""
        if self.consumer._pending is not None:
            return True
        return any(lying(queue) for queue in self.queues)


def enqueue(ledger: LockedLedger, producer: Producer, reply: bytes) -> int:
    """Has a process, whose two these are, receive a request and give it to whoever is free; its entry."""
    index = ledger.receive_copy(frame(reply), 1)
    assert index is not None
    assert producer.enqueue(index, None, DEFAULT, FAR)
    return index


class QueueOwner:
    """A living process beside the worker: its requests wait in the shared queue."""

    def __init__(self, parts: HostParts) -> None:
        self.ledger = LockedLedger(parts.directory, parts.new_serial())
        self.producer = Producer(self.ledger, parts.queues, asyncio.get_running_loop(), lambda index: None)

    def enqueue(self, reply: bytes) -> int:
        """A request more; its entry."""
        return enqueue(self.ledger, self.producer, reply)


def lying(queue: TokenQueue) -> bool:
    """Whether a token lies in a queue."""
    with contextlib.suppress(BlockingIOError):
        queue.receive.recv(64, socket.MSG_PEEK)
        return True
    return False


@contextlib.asynccontextmanager
async def host_parts(directory: Path, queues: tuple[str, ...] = (DEFAULT,)) -> AsyncIterator[HostParts]:
    """The parts of a host, with a server of its own."""
    async with NatsServer(directory) as server, HostParts(server, directory, queues) as made:
        yield made
