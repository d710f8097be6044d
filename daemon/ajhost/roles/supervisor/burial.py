"""What is done about workers that died or hang: answers at once, the rest moved, the ledger kept until that is done."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Protocol

from ajhost.adapters import ledger_file, processes
from ajhost.adapters.ledger_file import MappedLedger
from ajhost.core.figures import Tally
from ajhost.core.layout import Geometry, Identity, Word
from ajhost.core.ledger import Entry, Ledger
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.roles.shared_queue.maps import Maps
from ajhost.roles.supervisor.desk import COVER_PATIENCE, Desk
from ajhost.roles.supervisor.leftovers import Graveyard, Leftovers
from ajhost.roles.supervisor.member import Member
from ajhost.roles.supervisor.stored import Key, Stored
from ajhost.roles.supervisor.takeover import (
    Ready,
    answer_started,
    at_once,
    complete,
    detach,
    move_from_stopped,
    move_waiting,
    return_tokens,
    settle_sent,
)
from ajhost.settings.values import HandlerSettings

_log = logging.getLogger("ajhost.supervisor")
_CRASHES_KEPT = 10_000
_DEAD_PATIENCE = 360.0
"""Seconds to wait for what the server still has for a worker that is gone: it may hang or be cut off, and nobody waits.
So long a nats-server itself waits for a client that is cut off (`ping_interval` 2 minutes, `ping_max` 2)."""
_HURRIED_PATIENCE = 2.0
"""The same when the host stops."""
_NO_ENTRIES, _NO_STORE = 8, 4096
"""Of a ledger whose chunk is all that is needed of it."""
_STOP_LIMIT = 0.25
"""Seconds to wait for SIGSTOP to take effect on a worker that hangs: nothing else is done here meanwhile."""
_STOP_AGAIN = 1.0
"""Seconds until that is tried again: the machine is so loaded that the worker has not run at all."""


class Verdicts:
    """What the owner of a task is told whose worker died: another try, or none when it kills every worker."""

    def __init__(self, handlers: Sequence[HandlerSettings]) -> None:
        self._crashes: OrderedDict[str, int] = OrderedDict()
        self.follow(handlers)

    def follow(self, handlers: Sequence[HandlerSettings]) -> None:
        """Takes a generation's handlers."""
        self._limits = [(h.route, h.max_crashes) for h in sorted(handlers, key=lambda h: -len(h.route))]

    def __call__(self, entry: Entry, how: str) -> Outcome:
        """The outcome for an entry that was STARTED."""
        text = f"worker died: {how} while the task was running"
        limit = next((limit for route, limit in self._limits if entry.type.startswith(route)), 0)
        if not limit or not entry.id:
            return Failed(text)
        crashes = self._crashes[entry.id] = self._crashes.pop(entry.id, 0) + 1
        if len(self._crashes) > _CRASHES_KEPT:
            self._crashes.popitem(last=False)
        if crashes < limit:
            return Failed(text)
        del self._crashes[entry.id]
        return Terminated(f"{text}; it has killed {crashes} workers")


class Living(Protocol):
    """A worker that lives and may hang: a member of ours, or an orphan of an earlier start."""

    pid: int
    ledger: MappedLedger
    taking: asyncio.Lock
    """Held by whoever takes over its connection: two at work on one ledger would run its requests twice."""
    relieved: bool
    """Its connection is being taken over at this moment."""

    @property
    def pidfd(self) -> int:
        """The process's descriptor."""

    @property
    def dead(self) -> bool:
        """Whether it is known to have ended."""

    def kill(self) -> None:
        """SIGKILL."""

    def inherit(self) -> socket.socket | None:
        """Hands over a duplicate of its present connection, once; None when there is none."""


class Undertaker:
    """Settles what processes leave, with the desk's ledger and connection.

    `cover(patience)` is awaited before the last subscriber's connection ends, for so many seconds at most (None: as
    long as it takes), `spawn(work)` does what nobody waits for, `serial()` names one more ledger.
    """

    def __init__(
        self,
        directory: Path,
        desk: Desk,
        stored: Stored,
        verdicts: Verdicts,
        tally: Tally,
        *,
        cover: Callable[[float | None], Awaitable[None]],
        spawn: Callable[[Coroutine[None, None, None]], None],
        serial: Callable[[], int],
    ) -> None:
        self._directory, self._desk, self._stored, self._verdicts = directory, desk, stored, verdicts
        self._tally, self._cover, self._spawn, self._serial = tally, cover, spawn, serial
        self._dead_patience = _DEAD_PATIENCE
        self._limits: set[asyncio.Timeout] = set()
        self._maps = Maps(directory, desk.ledger)
        self.graveyard = Graveyard(directory, desk, self._maps)
        self.leftovers = Leftovers(directory, desk, self.graveyard, self._maps, stored)

    def hurry(self) -> None:
        """The host stops: servers that do not end a dead worker's connection are not waited for as long as before."""
        self._dead_patience = _HURRIED_PATIENCE
        soon = asyncio.get_running_loop().time() + _HURRIED_PATIENCE
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(soon)

    @property
    def idle(self) -> bool:
        """Whether nobody is left to be settled."""
        return self.graveyard.empty and not self.leftovers

    def tidy(self) -> None:
        """Forgets ledgers whose files are gone. Call it about once a second."""
        self._maps.prune()

    def answer(self, member: Member, how: str) -> int:
        """Answers, at once, everything that a dead worker had started."""
        count = answer_started(
            member.ledger, self._desk, lambda entry: self._verdicts(entry, how), self._maps,
            server_lost=not member.connected,
        )  # fmt: skip
        self._tally.answered += count
        return count

    async def bury(self, member: Member, answered: int) -> None:
        """Moves what a dead worker had not started."""
        async with member.taking:
            sock = member.inherit()
            moved = return_tokens(member.ledger, self._desk, self._maps)
            self._tally.moved += moved
            # it stays in the group until somebody else is there, and what comes meanwhile is moved as well
            moved += await self._empty(member.ledger, sock, lambda: self._cover(None))
        self.graveyard.add(member.ledger)
        if answered or moved:
            _log.warning(
                "worker %d (pid %d): %d started tasks answered for, %d requests moved",
                member.slot, member.pid, answered, moved,
            )  # fmt: skip

    async def _empty(
        self,
        ledger: MappedLedger,
        sock: socket.socket | None,
        ready: Ready = at_once,
    ) -> int:
        """Moves what is left in the ledger of a dead process, and what its server still has for it, however late."""
        limit = asyncio.timeout(self._dead_patience)
        self._limits.add(limit)
        try:
            moved = await move_waiting(ledger, sock, self._desk, limit=limit, ready=ready)
        finally:
            self._limits.discard(limit)
        self._tally.moved += moved.count
        if moved.rest is not None:
            _log.error("worker slot %d: its server does not answer, what it had for it is lost", ledger.slot)
            moved.rest.close()
            complete(ledger)
        read = moved.rest is None and not moved.broken
        # a server that ends as well has perhaps read it, and not passed it on
        settle_sent(ledger, self._desk, read=read and await self._desk.server_lives())
        self._stored.forget(ledger.serial)
        return moved.count

    async def _go_on(self, ledger: MappedLedger, rest: socket.socket) -> None:
        """The rest of a connection, long after all else is settled."""
        if count := await self._empty(ledger, rest):
            _log.warning("worker slot %d: %d requests moved that came late", ledger.slot, count)

    async def relieve(self, worker: Living, hangs: Callable[[], bool]) -> None:
        """Takes a hanging worker out of the group and moves what it had not started; it is stopped for that long."""
        await self._cover(COVER_PATIENCE)
        while True:
            async with worker.taking:
                if await self._relieve(worker, hangs):
                    return
            await asyncio.sleep(_STOP_AGAIN)

    async def _relieve(self, worker: Living, hangs: Callable[[], bool]) -> bool:
        """False when it could not be stopped."""
        if worker.dead or not hangs():
            return True
        ledger = worker.ledger
        stopped = processes.stop(worker.pidfd, worker.pid, _STOP_LIMIT)
        if stopped is processes.Stopped.ALREADY_STOPPED:
            # somebody else stopped it, and may let it go on at any moment, in the middle of a takeover too
            _log.error("worker %d (pid %d) was stopped from outside: SIGKILL", ledger.slot, worker.pid)
            worker.kill()
            return True
        if stopped is processes.Stopped.TIMEOUT:
            _log.warning("worker %d (pid %d) does not stop: trying again", ledger.slot, worker.pid)
            return False
        if stopped is processes.Stopped.GONE:
            return True
        worker.relieved = True
        try:
            sock = worker.inherit()
            moved = await move_from_stopped(ledger, sock, self._desk, self._maps)
            if moved.rest is not None:
                self._leave_rest(ledger, moved.rest)
            self._tally.moved += moved.count
        finally:
            worker.relieved = False
            if not worker.dead:
                processes.resume(worker.pidfd)
        if sock is not None:
            self._stored.forget(ledger.serial)
        _log.warning(
            "worker %d (pid %d): %d requests moved while it hangs", ledger.slot, worker.pid, moved.count
        )
        return True

    def _leave_rest(self, ledger: Ledger, rest: socket.socket) -> None:
        """A stopped worker shall go on, and its server has not ended the connection that was taken from it.

        What is still to come there gets a ledger of its own, like that of a worker which died with this connection.
        """
        identity = Identity(self._serial(), ledger.slot, ledger.generation)
        try:
            ledger_file.make(self._directory, Geometry(_NO_ENTRIES, ledger.chunk_size, _NO_STORE), identity)
            heir = ledger_file.MappedLedger(self._directory, identity.serial)
        except OSError as error:
            _log.error("worker slot %d: what its server has for it is lost: %s", ledger.slot, error.strerror)
            rest.close()
        else:
            detach(ledger, heir)
            self._stored.keep(Key(heir.serial, heir.words[Word.EPOCH]), rest)
            self.graveyard.add(heir)
            self._spawn(self._go_on(heir, rest))
        complete(ledger)

    def tend(self, now_ns: int) -> None:
        """Sees to everything that is left of the dead, and to orphans. Call it at every tick."""
        self.graveyard.tend(now_ns)
        for orphan in self.leftovers.look(now_ns):
            self._spawn(self.relieve(orphan, orphan.hangs))
        if self.leftovers and self.leftovers.due():
            self._spawn(self.settle_leftovers())

    async def settle_leftovers(self) -> None:
        """Settles the ledgers of an earlier start whose owners are dead."""
        unfinished = await self.leftovers.settle(
            lambda entry: self._verdicts(entry, "the host was killed or stopped")
        )
        for ledger, rest in unfinished:
            self._spawn(self._go_on(ledger, rest))
