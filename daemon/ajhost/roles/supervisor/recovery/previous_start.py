"""Finds what earlier starts left in the runtime directory: ledgers of dead processes, orphans, which it tells to leave
when this start serves, copied requests. Puts a ledger of another layout aside.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from functools import partial
from pathlib import Path

from ajhost.adapters.linux import ledger_file, processes
from ajhost.adapters.linux.ledger_file import GuardedLedger
from ajhost.core.recovery_rules import Fact
from ajhost.core.timings import STOP_LIMIT
from ajhost.ledger.layout import LedgerError, State
from ajhost.ledger.view import Ledger
from ajhost.protocol.frames import reply_of
from ajhost.roles.supervisor.fd_store import FdStore, InheritedConnections
from ajhost.roles.supervisor.overdue_answers import TICK_NS, OverdueAnswers
from ajhost.roles.supervisor.recovery.orphan import Orphan
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby

_log = logging.getLogger("ajhost.supervisor")
_STARTS = 20
"""Bits of a serial below those that name its start. The processes of one start share its queues."""
_EARLIER = Fact.SUPERVISOR_GONE | Fact.SERVER_UNKNOWN
"""The facts about every process of an earlier start."""


class PreviousStart:
    """The ledgers of earlier starts whose recovery has not begun, and the orphans that own some of them."""

    def __init__(self, directory: Path, standby: Standby, fd_store: FdStore) -> None:
        self._directory = directory
        ledger_file.clear_unfinished(directory)
        self._waiting = [s for s in ledger_file.serials(directory) if s != standby.serial]
        self.connections = InheritedConnections(fd_store, self._waiting)
        self._orphans: dict[int, Orphan] = {}
        self._queued: list[Remains] = []
        """Recovered except what is QUEUED: orphans of the same start still receive the tokens of that."""
        self._overdue = OverdueAnswers(standby)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def due(self) -> bool:
        """Whether `collect` would find something new: a ledger whose owner is dead."""
        return any(not self._being_taken_over(s) and self._owner(s) is None for s in self._waiting)

    def collect(self) -> list[Remains]:
        """Returns the remains of dead processes, each once, and once more when the last orphan of its start is dead.

        From then on the queue of that start is gone, so what is QUEUED in the ledger is recovered as well.
        """
        why = "the host was killed or stopped"
        found = [Remains(ledger, _EARLIER, why, self.connections.take(ledger)) for ledger in self._dead()]
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
        """Returns the ledgers whose owners are dead, and takes them off the list. Orphans own the rest."""
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
        """Returns the pid of the process that holds a ledger locked; None if there is none, or the file is gone."""
        try:
            return ledger_file.locked_by(self._directory, serial)
        except FileNotFoundError:
            return None

    def _being_taken_over(self, serial: int) -> bool:
        """Whether a takeover of a hanging orphan is under way. The orphan may have been killed meanwhile."""
        return serial in self._orphans and self._orphans[serial].takeover_lock.locked()

    def _find_orphan(self, owner: int, serial: int) -> None:
        """Takes up the worker that owns a ledger, unless it has ended meanwhile."""
        if serial in self._orphans:
            return
        try:
            orphan = Orphan(self._directory, serial, owner, self.connections)
        except (OSError, LedgerError):
            return
        if self._owner(serial) != owner:
            orphan.close()  # it has ended, and the pid may be another process's
            return
        self._orphans[serial] = orphan
        orphan.duplicate_socket()
        orphan.resume_or_kill()

    def check_orphans(self, now_ns: int) -> list[Orphan]:
        """Answers at the deadlines of orphans that hang. Returns those that have begun to hang.

        Call it at every tick, also at a late one: an orphan that is wrongly taken for hanging only leaves the queue
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
        """Tells the orphans (SIGTERM) to leave the queue group. Call it when the workers of this start serve.

        Those that hang get no signal: it would interrupt what they wait for, and their connections are taken over.
        """
        for orphan in self._orphans.values():
            if not orphan.hangs:
                processes.pidfd_signal(orphan.pidfd, signal.SIGTERM)


def new_serial() -> int:
    """Returns the first serial of this start, higher than all of earlier starts: it begins with the time."""
    return time.time_ns() // 1_000_000 << _STARTS


def order(ledger: Ledger) -> tuple[int, int]:
    """Sort key: by slot, older ledgers first. Supervisors' ledgers, into which requests are copied, come last."""
    return ledger.slot, ledger.serial


class Copies(dict[bytes, tuple[int, int]]):
    """The newest ledger (`order`) in which each request of earlier starts waits, by its reply subject.

    A supervisor that was killed between copying a request and revoking the original leaves both; the copy counts.
    """

    def add(self, ledger: Ledger) -> None:
        """Adds the reply subjects of a ledger's requests that wait there, also of those that are revoked or claimed."""
        place = order(ledger)
        waiting = (e for e in ledger.used() if e.state in (State.RECEIVED, State.QUEUED))
        for reply in {reply_of(ledger.frame(entry.index)) for entry in waiting} - {b""}:
            self[reply] = max(place, self.get(reply, place))

    def in_later_ledgers(self, ledger: Ledger) -> frozenset[bytes]:
        """Returns the reply subjects that a newer ledger than this one has."""
        here = order(ledger)
        return frozenset(reply for reply, place in self.items() if place > here)
