"""Recovers what earlier starts left in the runtime directory: ledgers of dead processes, and orphans."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import MappedLedger
from ajhost.core.recovery import Fact
from ajhost.ledger.layout import LedgerError, State
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.frames import reply_of
from ajhost.protocol.outcome import Outcome
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.supervisor.connections import FdStore, InheritedConnections, stored_key
from ajhost.roles.supervisor.deadline_keeper import TICK_NS, DeadlineKeeper
from ajhost.roles.supervisor.recovery.orphan import Orphan
from ajhost.roles.supervisor.recovery.retired import RetiredLedgers
from ajhost.roles.supervisor.recovery.takeover import (
    Requeued,
    answer_started,
    requeue_entries,
    requeue_tokens,
    requeue_waiting,
)
from ajhost.roles.supervisor.standby import Standby

_log = logging.getLogger("ajhost.supervisor")
_STARTS = 20
"""Bits of a serial below the number of its start."""
_EARLIER = Fact.SUPERVISOR_GONE | Fact.SERVER_UNKNOWN
"""The facts about every process of an earlier start."""


class PreviousStart:
    """Recovers the ledgers that earlier starts left, as soon as their owners are dead."""

    def __init__(
        self,
        directory: Path,
        standby: Standby,
        retired: RetiredLedgers,
        ledgers: LedgerCache,
        fd_store: FdStore,
    ) -> None:
        self._directory, self._standby, self._retired, self._ledgers = directory, standby, retired, ledgers
        self._fd_store, self._guard = fd_store, retired.guard
        self._connections = InheritedConnections(fd_store)
        ledger_file.clear_unfinished(directory)
        self._waiting = [s for s in ledger_file.serials(directory) if s != standby.serial]
        self._orphans: dict[int, Orphan] = {}
        self._queued: list[MappedLedger] = []
        self._seen = _SeenReplies()
        self._deadlines = DeadlineKeeper(standby)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take_stored_sockets(self, stored: list[tuple[str, int]]) -> list[str]:
        """Takes the sockets that systemd has stored. Returns the names of those that belong to no ledger."""
        foreign = []
        for name, descriptor in stored:
            key = stored_key(name)
            if key is not None and key.serial in self._waiting:
                self._connections.add_stored(key, socket.socket(fileno=descriptor))
            else:
                os.close(descriptor)
                foreign.append(name)
        return foreign

    async def recover(self, verdict: Callable[[Entry], Outcome]) -> list[tuple[MappedLedger, socket.socket]]:
        """Recovers every ledger whose owner is dead. Returns those whose connections have not ended in time.

        One call at a time: it waits for servers, and two takeovers of one ledger would run its requests twice.
        """
        async with self._retired.recovery_lock:
            return await self._recover(verdict)

    async def _recover(self, verdict: Callable[[Entry], Outcome]) -> list[tuple[MappedLedger, socket.socket]]:
        orphans, unfinished = [], []
        dead: list[MappedLedger] = []
        for serial in self._waiting:
            with contextlib.suppress(FileNotFoundError):
                owner = ledger_file.locked_by(self._directory, serial)
                if owner is not None:
                    self._find_orphan(owner, serial)
                    orphans.append(serial)
                    continue
                try:
                    dead.append(MappedLedger(self._directory, serial))
                except LedgerError as error:
                    aside = ledger_file.quarantine(self._directory, serial)
                    _log.error("ledger %d is not one of ours (%s): put aside as %s", serial, error, aside)
        for serial in self._orphans.keys() - set(orphans):
            self._orphans.pop(serial).close()
        # before anything is requeued: claim in its first ledger what a dead consumer had started. Answer it once: a
        # supervisor's ledger has answers for requests of its workers' too, and starts that die early would double
        # them
        told: set[bytes] = set()
        started = dict.fromkeys((one.serial for one in dead), 0)
        for one in sorted(dead, key=_order):
            with self._guard("answering for a process of an earlier start"):
                one.recount_touched()
                started[one.serial] = answer_started(
                    one, self._standby, verdict, self._ledgers, _EARLIER, told=told
                )
        # dead supervisors' ledgers first, the youngest before those that it had recovered: the requests it holds are
        # known when their first ledgers are recovered
        living = {serial >> _STARTS for serial in orphans}
        for ledger in sorted(dead, key=_order, reverse=True):
            answered = started[ledger.serial]
            # the shared queue lives as long as an orphan of its start
            queue_lives = _start(ledger) in living
            requeued = Requeued()
            with self._guard("moving what a process of an earlier start left"):
                requeued = await requeue_waiting(
                    ledger,
                    self._connections.take(ledger),
                    self._standby,
                    _EARLIER if queue_lives else _EARLIER | Fact.QUEUE_GONE,
                    seen=self._seen.in_later_ledgers(ledger),
                )
            self._seen.add(ledger)
            if requeued.rest is not None:
                unfinished.append((ledger, requeued.rest))
            else:
                self._fd_store.forget(ledger.serial)
            if answered or requeued.count:
                _log.warning(
                    "found %d requests of an earlier start: %d run now, %d had started",
                    answered + requeued.count,
                    requeued.count,
                    answered,
                )
            self._retired.add(ledger)
            if queue_lives:
                self._queued.append(ledger)
        # when all is requeued, so that of these only what an orphan has or had is left
        for ledger in dead:
            with self._guard("moving what a process of an earlier start had pulled"):
                requeue_tokens(ledger, self._standby, self._ledgers)
        ended = [one for one in self._queued if _start(one) not in living]
        self._queued = [one for one in self._queued if _start(one) in living]
        for ledger in sorted(ended, key=_order, reverse=True):
            if self._retired.has(ledger):
                requeue_entries(
                    ledger,
                    self._standby,
                    _EARLIER | Fact.QUEUE_GONE,
                    seen=self._seen.in_later_ledgers(ledger),
                )
        self._waiting = orphans
        if not orphans:
            self._seen = _SeenReplies()  # nothing is left that could be known
        return unfinished

    def _find_orphan(self, owner: int, serial: int) -> None:
        """The pidfd of a process that lives, or did a moment ago."""
        if serial in self._orphans:
            return
        try:
            orphan = Orphan(self._directory, serial, owner, self._connections, self._retired.recovery_lock)
        except (OSError, LedgerError):
            return
        if ledger_file.locked_by(self._directory, serial) != owner:
            orphan.close()  # it has ended, and the pid may be another process's
            return
        self._orphans[serial] = orphan
        orphan.duplicate_socket()
        orphan.resume_or_kill()

    def check_orphans(self, now_ns: int) -> list[Orphan]:
        """Keeps the deadlines of orphans that hang. Returns those that have begun to hang.

        Call it at every tick, also one that is late: an orphan that is wrongly taken for hanging only leaves the queue
        group, as every orphan should.
        """
        for orphan in self._orphans.values():
            orphan.duplicate_socket()
            self._deadlines.check(orphan.ledger, now_ns, TICK_NS)
        return [orphan for orphan in self._orphans.values() if orphan.begins_to_hang()]

    def ask_orphans_to_leave(self) -> None:
        """Workers of this start serve: tells the orphans to leave the queue group.

        Not those that hang: their connections are taken over, and a signal would interrupt what they wait for.
        """
        for orphan in self._orphans.values():
            if not orphan.hangs():
                orphan.ask_to_leave()

    def due(self) -> bool:
        """Whether an orphan has ended since, so that `recover` has something to do."""
        if self._retired.recovery_lock.locked():
            return False
        for serial in self._waiting:
            try:
                if ledger_file.locked_by(self._directory, serial) is None:
                    return True
            except FileNotFoundError:
                return True
        return False


class _SeenReplies:
    """Reply subjects that already have a copy in a newer ledger.

    A supervisor that was killed between copying a request and revoking the original leaves both; only the copy in the
    newest ledger counts. Order: workers' ledgers before supervisors', older ones before newer ones (`_order`).
    """

    def __init__(self) -> None:
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, ledger: Ledger) -> None:
        """Takes the reply subjects of requests that wait in a ledger, or were copied from there."""
        place = _order(ledger)
        waiting = (e for e in ledger.used() if e.state in (State.RECEIVED, State.QUEUED))
        for reply in {reply_of(ledger.frame(entry.index)) for entry in waiting} - {b""}:
            self._places[reply] = max(place, self._places.get(reply, place))

    def in_later_ledgers(self, ledger: Ledger) -> set[bytes]:
        """The reply subjects that have a copy in a newer ledger than this."""
        here = _order(ledger)
        return {reply for reply, place in self._places.items() if place > here}


def _order(ledger: Ledger) -> tuple[int, int]:
    """Supervisors' ledgers last, the youngest last of all."""
    return ledger.slot, ledger.serial


def _start(ledger: MappedLedger) -> int:
    """The start that made the ledger. The processes of one start share its queues."""
    return ledger.serial >> _STARTS


def new_serial() -> int:
    """The first serial of this start, which no earlier start of this runtime directory has reached."""
    return time.time_ns() // 1_000_000 << _STARTS
