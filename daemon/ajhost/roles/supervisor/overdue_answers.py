"""Answers in place of workers and orphans that miss their heartbeats, at the deadlines of their requests (`deadline
exceeded: its worker did not answer in time`). What waits in a dead one's ledger, `recovery/remains.py` answers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ajhost.core.liveness_rules import MISSED_NS
from ajhost.core.recovery_rules import overdue
from ajhost.core.timings import CHECK_INTERVAL, nanoseconds
from ajhost.ledger.layout import State, Word
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.outcome import Failed
from ajhost.protocol.reasons import FailureReason
from ajhost.roles import overload
from ajhost.roles.supervisor.standby import Standby

TICK_NS = nanoseconds(CHECK_INTERVAL)
_EXCEEDED = FailureReason.DEADLINE_EXCEEDED.text("its worker did not answer in time")


class OverdueAnswers:
    """An answer takes two checks, or one that was on time (`check`): the owner may be about to answer itself."""

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
        still: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(False),
    ) -> int:
        """Answers what is overdue. Call it at every tick. Returns how many tasks that run were answered.

        `now_ns` is monotonic. `lead_ns`: what is due so much later counts as due, since the owner is known to hang and
        the second check is a tick later. `on_time`: this process was not held up, so one check may stand for two that
        would have come sooner. `heartbeat_ns`: the owner's last heartbeat, where the caller knows better than the
        ledger. `still()` stops the owner for a block and yields whether it is stopped: otherwise both might answer.
        """
        before = self._suspects.pop(ledger.serial, {})
        age_ns = now_ns - (ledger.words[Word.HEARTBEAT] if heartbeat_ns is None else heartbeat_ns)
        if age_ns <= MISSED_NS:
            return 0
        answered = 0
        long_ns = now_ns - TICK_NS if on_time and age_ns > MISSED_NS + TICK_NS else 0

        def is_certain(entry: Entry) -> bool:
            return before.get(entry.index) == entry.seq or entry.deadline_ns <= long_ns

        due = overdue(ledger, now_ns + lead_ns)
        if found := {entry.index: entry.seq for entry in due}:
            self._suspects[ledger.serial] = found
        if any(map(is_certain, due)):
            with still() as stands_still:
                for entry in filter(is_certain, overdue(ledger, now_ns + lead_ns)):
                    outcome = Failed(overload.UNTOLD if entry.refused else _EXCEEDED)
                    self._standby.answer_for(ledger, entry, outcome, stands_still=stands_still)
                    answered += entry.state is State.STARTED and not entry.refused
        return answered

    def forget(self, serial: int) -> None:
        """Forgets an owner that has ended."""
        self._suspects.pop(serial, None)
