"""Records what the supervisor answers itself, as a worker does: counts it by route, and logs it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ajhost.adapters.linux.stats_files import DIRECTORY, StatsFile
from ajhost.adapters.logs.log_record import TaskLabels
from ajhost.core.route_stats import StatsWriter
from ajhost.ledger.layout import State, Word
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.frames import FrameError, scan
from ajhost.protocol.outcome import Outcome
from ajhost.protocol.task_record import TaskRecord, read_task
from ajhost.roles.attempt_records import Attempts, log_outcome
from ajhost.roles.recent_attempts import RecentAttempts

_AT_ONCE = 32
"""Attempts that are logged in one turn of the event loop."""


class AnswerRecords:
    """Routes are the present generation's, found by a task's type. `call_soon`: the event loop's."""

    def __init__(self, runtime: Path, routes: Sequence[str], call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._file = StatsFile(runtime / DIRECTORY)
        recent = RecentAttempts(runtime)
        self._attempts = Attempts(self._file.writer(routes), routes, recent, log_completed=False)
        self.limits = self._attempts.limits
        self.use_routes(routes)
        self._call_soon, self._untold = call_soon, deque[tuple[Outcome, TaskLabels, dict[str, str]]]()
        """`_untold`: attempts that the supervisor has answered and not logged yet, and of which worker they were."""

    def use_routes(self, routes: Sequence[str]) -> None:
        self._routes = routes
        self._by_length = sorted(enumerate(routes), key=lambda found: -len(found[1]))
        self._attempts.use(self._file.writer(routes), routes)

    def close(self) -> None:
        """Logs at once what is not logged yet."""
        self._tell(len(self._untold))
        self.limits.close()

    def begun(self, ledger: Ledger, entry: Entry, outcome: Outcome) -> None:
        """Records an attempt that a worker began and cannot answer. Counts it now, and logs it later.

        To log an attempt takes longer than to answer it, and when workers die many wait for their answers. Ignores what
        the worker had refused: the worker has recorded that itself.
        """
        if entry.refused or entry.state in (State.RECEIVED, State.QUEUED):
            return
        now, begun, received = time.monotonic(), entry.started_ns / 1e9, entry.received_ns / 1e9
        number = self._number(entry.type)
        route = "" if number is None else self._routes[number]
        if entry.state in (State.STARTED, State.ANSWERED):  # what is SENT, its worker has counted
            self._attempts.count(
                StatsWriter.NO_ROUTE if number is None else number, outcome, begun - received, now - begun
            )
        labels = TaskLabels(entry.id, entry.type, route, entry.tries, now - received)
        worker = {"aj_worker_slot": str(ledger.slot), "aj_worker_pid": str(ledger.words[Word.PID])}
        if not self._untold:
            self._call_soon(self._tell_some)
        self._untold.append((outcome, labels, worker))

    def _tell_some(self) -> None:
        self._tell(min(_AT_ONCE, len(self._untold)))
        if self._untold:
            self._call_soon(self._tell_some)

    def _tell(self, count: int) -> None:
        for _ in range(count):
            outcome, labels, worker = self._untold.popleft()
            self._attempts.remember(outcome, labels)
            log_outcome(outcome, labels, extra=worker)

    def refused(self, frame: bytes, text: str) -> None:
        """Records the refusal of a request that no worker has begun. `frame`: as it came, or what there is of it."""
        number, record = self._about(frame)
        self._attempts.refused(number, text, record)

    def _number(self, task_type: str) -> int | None:
        return next((number for number, route in self._by_length if task_type.startswith(route)), None)

    def _about(self, frame: bytes) -> tuple[int | None, TaskRecord | None]:
        with contextlib.suppress(FrameError, ValueError, IndexError):
            _, _, body, end, _, _ = scan(frame).messages[0]
            record = read_task(frame[body : end - 2])
            return self._number(record.type), record
        return None, None
