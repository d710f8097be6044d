"""What is done about workers that died or hang: answers at once, the rest moved, the ledger kept until that is done."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ajhost.adapters import processes
from ajhost.core.figures import Tally
from ajhost.core.ledger import Entry
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.roles.shared_queue.maps import Maps
from ajhost.roles.supervisor.desk import Desk
from ajhost.roles.supervisor.leftovers import Graveyard, Leftovers
from ajhost.roles.supervisor.member import Member
from ajhost.roles.supervisor.stored import Stored
from ajhost.roles.supervisor.takeover import (
    READ_PATIENCE,
    answer_started,
    move_entries,
    move_waiting,
    return_claimed,
    return_tokens,
)
from ajhost.settings.values import HandlerSettings

_log = logging.getLogger("ajhost.supervisor")
_CRASHES_KEPT = 10_000
_DEAD_PATIENCE = 60.0
"""Seconds to wait for what the server still has for a dead worker: it may hang or be cut off, and nobody waits."""
_STOP_LIMIT = 0.25
"""Seconds to wait for SIGSTOP to take effect on a worker that hangs."""


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


class Undertaker:
    """Settles what processes leave, with the desk's ledger and connection.

    `cover()` is awaited before the last subscriber's connection ends.
    """

    def __init__(
        self,
        directory: Path,
        desk: Desk,
        stored: Stored,
        verdicts: Verdicts,
        cover: Callable[[], Awaitable[None]],
        tally: Tally,
    ) -> None:
        self._desk, self._stored, self._verdicts, self._cover = desk, stored, verdicts, cover
        self._tally = tally
        self._dead_patience = _DEAD_PATIENCE
        self._limits: set[asyncio.Timeout] = set()
        self._maps = Maps(directory, desk.ledger)
        self.graveyard = Graveyard(directory, desk, self._maps)
        self.leftovers = Leftovers(directory, desk, self.graveyard, self._maps, stored)

    def hurry(self) -> None:
        """The host stops: servers that do not end a dead worker's connection are not waited for as long as before."""
        self._dead_patience = READ_PATIENCE
        soon = asyncio.get_running_loop().time() + READ_PATIENCE
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(soon)

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
            if sock is not None:
                await self._cover()
            moved = return_tokens(member.ledger, self._desk, self._maps)
            limit = asyncio.timeout(self._dead_patience)
            self._limits.add(limit)
            try:
                moved += await move_waiting(member.ledger, sock, self._desk, limit=limit)
            finally:
                self._limits.discard(limit)
        self._tally.moved += moved
        self._stored.forget(member.serial)
        self.graveyard.add(member.ledger)
        if answered or moved:
            _log.warning(
                "worker %d (pid %d): %d started tasks answered for, %d requests moved",
                member.slot, member.pid, answered, moved,
            )  # fmt: skip

    async def relieve(self, member: Member, hangs: Callable[[], bool]) -> None:
        """Takes a hanging worker out of the group and moves what it had not started; it is stopped for that long."""
        await self._cover()
        async with member.taking:
            await self._relieve(member, hangs)

    async def _relieve(self, member: Member, hangs: Callable[[], bool]) -> None:
        if member.result is not None or not hangs():
            return
        stopped = processes.stop(member.pidfd, member.pid, _STOP_LIMIT)
        if stopped is processes.Stopped.ALREADY_STOPPED:
            # somebody else stopped it, and may let it go on at any moment, in the middle of a takeover too
            _log.error("worker %d (pid %d) was stopped from outside: SIGKILL", member.slot, member.pid)
            member.kill()
            return
        if stopped is not processes.Stopped.STOPPED:
            return
        member.relieved = True
        try:
            sock = member.inherit()
            moved = return_claimed(member.ledger, self._desk, self._maps)
            if sock is None:
                # it is between two connections: of the one to come there is nothing to take over, and it is its own
                moved += move_entries(member.ledger, self._desk).count
            else:
                moved += await move_waiting(member.ledger, sock, self._desk)
            self._tally.moved += moved
        finally:
            member.relieved = False
            if member.result is None:
                processes.resume(member.pidfd)
        if sock is not None:
            self._stored.forget(member.serial)
        _log.warning("worker %d (pid %d): %d requests moved while it hangs", member.slot, member.pid, moved)

    async def settle_leftovers(self) -> None:
        """Settles the ledgers of an earlier start whose owners are dead."""
        await self.leftovers.settle(lambda entry: self._verdicts(entry, "the host was killed or stopped"))
