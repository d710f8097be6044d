"""The parts of a host around a worker: ledgers, queues, a standby on a real server, and a client of answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

import ajhost
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
from ajhost.roles.process_specs import GenerationSpec
from ajhost.roles.shared_queue.consumer import ClaimedRequest, Consumer, Origin
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.shared_queue.token_queues import DEFAULT, TokenQueue, open_queue
from ajhost.roles.supervisor.fd_store import FdStore
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.recovery.procedure import Recovery
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby
from ajhost.settings.values import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    WorkerSettings,
)
from tests.support.instructions import Instructions
from tests.support.nats import NatsServer, round_trip

GEOMETRY = Geometry(64, 1 << 17, 1 << 16)
SUBJECT = "CHORIA_AJ.H.T.t"
STANDBY = 1 << 30
CONSUMER = 1 << 29
LIMIT = 60.0
_OURS = str(Path(ajhost.__file__).parent)


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


async def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Waits until something that others do is so."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it never comes to be"
        await asyncio.sleep(0.001)


Act = Callable[[Callable[[bytes], None], Callable[[Callable[[], object]], None]], None]
"""What a child does: `act(tell, watch)`. It calls `watch(world)` when it may be killed from then on."""


class Killed:
    """A forked child that does `act` and is killed by SIGKILL before the `kill_at`-th instruction of ajhost's code.

    0: it lives to the end, and `changes` then names the instructions before which `world()`, all that outlives the
    process, was another than before the one in front. A kill between two of them leaves what a kill at the first does.
    `told` is what the child wrote to its pipe.
    """

    def __init__(self, act: Act, kill_at: int) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run(act, kill_at, signal.SIGKILL, writer)
        os.close(writer)
        with open(reader, "rb") as stream:
            self.told = stream.read().split()
        _, status = os.waitpid(pid, 0)
        self.changes: list[int] = []
        if kill_at:
            assert os.WIFSIGNALED(status), (kill_at, status, self.told)
            assert os.WTERMSIG(status) == signal.SIGKILL
        else:
            assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
            self.changes = list(map(int, self.told.pop().split(b",")))


class Stopped:
    """A forked child that does `act`, and is stopped by SIGSTOP before the `stop_at`-th line of `ajhost.ledger`.

    Nothing else reads or writes shared memory. It is stopped when this is made, unless it had `ended` before that.
    """

    def __init__(self, act: Act, stop_at: int) -> None:
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run(act, stop_at, signal.SIGSTOP, writer, lines_of=str(Path(_OURS) / "ledger"))
        os.close(writer)
        _, status = os.waitpid(self._pid, os.WUNTRACED)
        self.ended = not os.WIFSTOPPED(status)
        self._over = self.ended
        assert not self.ended or status == 0, "the child failed"

    def go_on(self) -> None:
        """To its end; at once if it has ended."""
        if not self._over:
            os.kill(self._pid, signal.SIGCONT)
            assert os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]) == 0, "the child failed"
            self._over = True

    def kill(self) -> None:
        """SIGKILL, where it stands."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reader)
        self._over = True

    def told(self) -> list[bytes]:
        """What it wrote to its pipe. It must have ended."""
        assert self._over
        with open(self._reader, "rb") as stream:
            return [word for word in stream.read().split() if word[:1].isalpha()]


def _run(act: Act, signal_at: int, number: int, writer: int, lines_of: str = "") -> None:
    executed, changes, last = 0, [1], None
    look: Callable[[], object] = lambda: None  # noqa: E731
    code = lines_of or _OURS
    line: object = None

    def before() -> None:
        nonlocal executed, last, line
        if lines_of:
            frame = sys._getframe(1)
            while not frame.f_code.co_filename.startswith(code):
                assert frame.f_back is not None
                frame = frame.f_back
            if line == (line := (frame.f_code, frame.f_lineno)):
                return
        executed += 1
        if executed == signal_at:
            os.kill(os.getpid(), number)
        if not signal_at and (now := look()) != last:
            last = now
            changes.append(executed)

    instructions = Instructions(lambda file: file.startswith(code), before)

    def watch(world: Callable[[], object]) -> None:
        nonlocal look, last
        look, last = world, world()
        instructions.__enter__()

    status = 1
    try:
        act(lambda text: _write(writer, text), watch)
        instructions.__exit__()
        _write(writer, b",".join(b"%d" % n for n in [*changes, executed]))
        status = 0
    finally:
        os._exit(status)


def _write(writer: int, text: bytes) -> None:
    os.write(writer, text + b" ")


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
            SignatureSettings(),
            LogSettings(),
            queues,
        )
        self.ledgers = LedgerCache(self.directory)
        self.ran: list[bytes] = []
        self.answers: dict[bytes, list[str]] = {}
        self.room = True
        self._serial = 0

    async def __aenter__(self) -> Self:
        self.standby = Standby(self.plan, STANDBY, self.queues, 1 << 16, lambda epoch, sock: None)
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
