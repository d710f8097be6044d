"""Keeps the deadlines of processes that miss heartbeats: hanging workers, and orphans of an earlier start."""

from __future__ import annotations

from ajhost.core.liveness import MISSED_NS
from ajhost.core.recovery import overdue
from ajhost.core.timings import CHECK_INTERVAL, nanoseconds
from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.supervisor.recovery.takeover import answer_for
from ajhost.roles.supervisor.standby import Standby

TICK_NS = nanoseconds(CHECK_INTERVAL)
_EXCEEDED = FailureReason.DEADLINE_EXCEEDED.text("the worker hangs")
_REFUSED = FailureReason.OVERLOADED.text("the worker that refused it hangs")


class DeadlineKeeper:
    """Answers overdue requests of living processes.

    It answers only what two checks have found overdue: the owner may be about to answer itself.
    """

    def __init__(self, standby: Standby) -> None:
        self._standby = standby
        self._suspects: dict[int, dict[int, int]] = {}

    def check(
        self,
        ledger: Ledger,
        now_ns: int,
        lead_ns: int,
        *,
        on_time: bool = False,
        heartbeat_ns: int | None = None,
    ) -> None:
        """Call it at every tick. Times are monotonic nanoseconds.

        `lead_ns`: treat requests that are due within this as due, because the owner is known to hang, and the second
        check is a tick later. `on_time`: this process was not held up, so one check may stand for two. `heartbeat_ns`:
        the owner's last heartbeat, if the caller knows better than the ledger.
        """
        before, found = self._suspects.pop(ledger.serial, {}), {}
        age_ns = now_ns - (ledger.words[Word.HEARTBEAT] if heartbeat_ns is None else heartbeat_ns)
        if age_ns <= MISSED_NS:
            return
        long_ns = now_ns - TICK_NS if on_time and age_ns > MISSED_NS + TICK_NS else 0
        for entry in overdue(ledger, now_ns + lead_ns):
            found[entry.index] = entry.seq
            if before.get(entry.index) == entry.seq or entry.deadline_ns <= long_ns:
                answer_for(ledger, entry, self._standby, _REFUSED if entry.refused else _EXCEEDED)
        if found:
            self._suspects[ledger.serial] = found

    def forget(self, serial: int) -> None:
        """Forgets an owner that has ended."""
        self._suspects.pop(serial, None)
