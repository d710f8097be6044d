"""What earlier starts left in the runtime directory: ledgers of dead processes, and orphans that live."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from functools import partial
from pathlib import Path

from ajhost.adapters.linux import ledger_file, processes
from ajhost.adapters.linux.ledger_file import GuardedLedger
from ajhost.core.recovery_rules import Fact
from ajhost.core.timings import STOP_LIMIT
from ajhost.ledger.layout import LedgerError
from ajhost.roles.supervisor.fd_store import FdStore, InheritedConnections, stored_key
from ajhost.roles.supervisor.overdue_answers import TICK_NS, OverdueAnswers
from ajhost.roles.supervisor.recovery.orphan import Orphan
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby

_log = logging.getLogger("ajhost.supervisor")
_STARTS = 20
"""Bits of a serial below the number of its start. The processes of one start share its queues."""
_EARLIER = Fact.SUPERVISOR_GONE | Fact.SERVER_UNKNOWN
"""The facts about every process of an earlier start."""


class PreviousStart:
    """Finds what is to be recovered, as soon as its owner is dead."""

    def __init__(self, directory: Path, standby: Standby, fd_store: FdStore) -> None:
        self._directory = directory
        self._connections = InheritedConnections(fd_store)
        ledger_file.clear_unfinished(directory)
        self._waiting = [s for s in ledger_file.serials(directory) if s != standby.serial]
        self._orphans: dict[int, Orphan] = {}
        self._queued: list[Remains] = []
        """Recovered but for what is QUEUED, whose tokens the orphans of the same start still pass round."""
        self._overdue = OverdueAnswers(standby)

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

    def due(self) -> bool:
        """Whether `collect` would find something: a ledger whose owner is dead."""
        return any(not self._being_taken_over(s) and self._owner(s) is None for s in self._waiting)

    def collect(self) -> list[Remains]:
        """What dead processes left, each once; and once more when the last orphan of their start is dead."""
        why = "the host was killed or stopped"
        found = [Remains(ledger, _EARLIER, why, self._connections.take(ledger)) for ledger in self._dead()]
        living = {serial >> _STARTS for serial in self._waiting}
        left, ended = [*self._queued, *found], []
        self._queued = []
        for one in left:
            if one.ledger.serial >> _STARTS in living:
                self._queued.append(one)
            else:
                one.facts |= Fact.QUEUE_GONE
                ended.append(one)
        return [*found, *(one for one in ended if one not in found)]

    def _dead(self) -> list[GuardedLedger]:
        """The ledgers that nobody owns any more. The owners of those that still wait are orphans."""
        dead: list[GuardedLedger] = []
        orphans: list[int] = []
        for serial in self._waiting:
            with contextlib.suppress(FileNotFoundError):
                try:
                    if (owner := self._owner(serial)) is None and not self._being_taken_over(serial):
                        dead.append(GuardedLedger(self._directory, serial))
                        continue
                    orphans.append(serial)
                    if owner is not None:
                        self._find_orphan(owner, serial)
                except (LedgerError, PermissionError) as error:
                    aside = ledger_file.quarantine(self._directory, serial)
                    _log.error("ledger %d is not one of ours (%s): put aside as %s", serial, error, aside)
        self._waiting = orphans
        for serial in self._orphans.keys() - set(orphans):
            self._orphans.pop(serial).close()
        return dead

    def _owner(self, serial: int) -> int | None:
        """The process that holds a ledger locked. None: nobody, or it is gone."""
        try:
            return ledger_file.locked_by(self._directory, serial)
        except FileNotFoundError:
            return None

    def _being_taken_over(self, serial: int) -> bool:
        """Whether it hung, and its connection is still being read: it may have been killed meanwhile."""
        return serial in self._orphans and self._orphans[serial].takeover_lock.locked()

    def _find_orphan(self, owner: int, serial: int) -> None:
        """Takes up a worker that lives, or did a moment ago."""
        if serial in self._orphans:
            return
        try:
            orphan = Orphan(self._directory, serial, owner, self._connections)
        except (OSError, LedgerError):
            return
        if self._owner(serial) != owner:
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
            self._overdue.check(
                orphan.ledger,
                now_ns,
                TICK_NS,
                still=partial(processes.standing_still, orphan.pidfd, orphan.pid, STOP_LIMIT),
            )
        return [orphan for orphan in self._orphans.values() if orphan.begins_to_hang()]

    def ask_orphans_to_leave(self) -> None:
        """Workers of this start serve: tells the orphans to leave the queue group.

        Not those that hang: their connections are taken over, and a signal would interrupt what they wait for.
        """
        for orphan in self._orphans.values():
            if not orphan.hangs:
                orphan.ask_to_leave()


def new_serial() -> int:
    """The first serial of this start, which no earlier start of this runtime directory has reached."""
    return time.time_ns() // 1_000_000 << _STARTS
