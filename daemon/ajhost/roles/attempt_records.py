"""Counts what became of each attempt, by route, and logs it in one record, in the process that answered it.
Decides the level, and how many records of one reason are written before the rest are only counted.

completed            DEBUG, or INFO with `[log] tasks = "all"`
AJ-Terminate         INFO when the handler asked for it, else WARNING
an exception         ERROR, with its traceback, where the handler raised it
any other AJ-Error   WARNING
refused              WARNING, once in 30 s for each reason, then with a count
`[log.limits]`       at most so many of a reason in 30 s, then one record with the count of the others
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

from ajhost.adapters.linux.stats_files import DIRECTORY, StatsFile
from ajhost.adapters.logs import log_routing
from ajhost.adapters.logs.log_record import Labelled, TaskLabels
from ajhost.adapters.own_code import PACKAGE
from ajhost.core.report_throttle import Throttle
from ajhost.core.route_stats import StatsWriter
from ajhost.ledger.view import Entry
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason, reason_of
from ajhost.protocol.task_record import TaskRecord
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.recent_attempts import RecentAttempts

_log = logging.getLogger("ajhost.attempts")
_SIGNATURES = ("the task is not signed", "the task's signature")
"""How refusals begin that are about a signature: they are throttled apart from what is malformed."""


class Attempts:
    """The attempts that one process answers."""

    def __init__(
        self,
        stats: StatsWriter,
        routes: Sequence[str],
        recent: RecentAttempts | None = None,
        *,
        log_completed: bool,
        limits: Iterable[tuple[str, int]] = (),
    ) -> None:
        """`limits`: `[log.limits]`, kept for the whole process until they are closed."""
        self.use(stats, routes)
        self.limits = LogLimits(limits)
        self._recent = recent
        self._completed_level = logging.INFO if log_completed else logging.DEBUG
        self.logs_completed = _log.isEnabledFor(self._completed_level)

    @classmethod
    def of(cls, spec: GenerationSpec) -> Self:
        """Returns those of a worker of this generation."""
        routes = [handler.route for handler in spec.handlers]
        stats = StatsFile(spec.runtime / DIRECTORY).writer(routes)
        recent = RecentAttempts(spec.runtime)
        return cls(stats, routes, recent, log_completed=spec.log.tasks == "all", limits=spec.log.limits)

    def use(self, stats: StatsWriter, routes: Sequence[str]) -> None:
        """Counts in `stats` from now on; `routes`: their names, by number."""
        self.stats, self._routes = stats, routes

    def ended(self, attempt: Labelled, outcome: Outcome, *, logged: bool) -> None:
        """Logs an attempt that had begun and has its answer. It is counted apart from that.

        `logged`: it is in the log already, from where its handler raised the exception.
        """
        if type(outcome) is not Completed:
            labels = attempt.labels()
            self.remember(outcome, labels)
            if not logged:
                log_outcome(outcome, labels)
        elif self.logs_completed:
            labels = attempt.labels()
            _log.log(
                self._completed_level, "route %r: completed in %.3g s", labels.route, labels.duration,
                extra=labels.extras() | {"aj_outcome": "completed"},
            )  # fmt: skip

    def remember(self, outcome: Outcome, labels: TaskLabels) -> None:
        """Keeps an attempt that did not complete for the page."""
        if self._recent is not None and not isinstance(outcome, Completed):
            kind = "terminated" if isinstance(outcome, Terminated) else "failed"
            self._recent.add(
                id=labels.id, type=labels.type, tries=labels.tries,
                outcome=kind, reason=reason_of(outcome.text), text=outcome.text,
            )  # fmt: skip

    def count(self, route: int, outcome: Outcome, waited: float, ran: float) -> None:
        if type(outcome) is Completed:
            self.stats.completed([(route, waited, ran)])
        elif type(outcome) is Terminated:
            self.stats.terminated(route, waited, ran)
        elif type(outcome) is Failed:
            self.stats.failed(route, reason_of(outcome.text), waited, ran)

    def take_back(self, entry: Entry, before: type[Outcome], outcome: Failed | Terminated) -> None:
        """Corrects the counts for an answer that did not reach its router. The connection logs why, with a count."""
        now = time.monotonic()
        reason = None if type(outcome) is Terminated else reason_of(outcome.text)
        self.stats.take_back(entry.route, reason, now - entry.started_ns / 1e9, completed=before is Completed)
        route = self._routes[entry.route] if entry.route < len(self._routes) else ""
        labels = TaskLabels(entry.id, entry.type, route, entry.tries, now - entry.received_ns / 1e9)
        self.remember(outcome, labels)

    def refused(self, route: int | None, text: str, record: TaskRecord | None = None, received_ns: int = 0) -> None:
        """Counts and logs a request that was refused before it began. `route`, `record`: as far as they are known."""
        reason = reason_of(text)
        self.stats.refused(StatsWriter.NO_ROUTE if route is None else route, reason)
        if not (count := self.limits.refusals(reason, text)):
            return
        extras: dict[str, str] = {}
        if self._recent is not None:
            known = ("", "", 0) if record is None else (record.id, record.type, record.tries)
            self._recent.add(id=known[0], type=known[1], tries=known[2], outcome="refused", reason=reason, text=text)
        if record is not None:
            name = "" if route is None else self._routes[route]
            waited = time.monotonic() - received_ns / 1e9 if received_ns else 0.0
            extras = TaskLabels(record.id, record.type, name, record.tries, waited).extras()
        said = f"refused {count} more, the last" if count > 1 else "refused"
        _log.warning("%s: %s", said, text, extra=extras | {"aj_outcome": "refused", "aj_reason": reason})


def log_outcome(
    outcome: Outcome,
    labels: TaskLabels,
    level: int = logging.WARNING,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Logs an attempt that did not complete, with further labels in `extra`."""
    if isinstance(outcome, Completed):
        return
    name, kind = ("AJ-Terminate", "terminated") if isinstance(outcome, Terminated) else ("AJ-Error", "failed")
    _log.log(
        level, "route %r: %s: %s", labels.route, name, outcome.text,
        extra={**labels.extras(), "aj_outcome": kind, "aj_reason": reason_of(outcome.text), **extra},
    )  # fmt: skip


def _of_the_application(error: BaseException) -> TracebackType | None:
    """Returns the traceback without the host's frames, which called the handler; with them if it has no others."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(PACKAGE):
        trace = trace.tb_next
    return trace or error.__traceback__


def log_exception(error: BaseException, text: str, labels: TaskLabels) -> None:
    _log.error(
        "route %r: %s", labels.route, text, exc_info=(type(error), error, _of_the_application(error)),
        extra=labels.extras() | {"aj_outcome": "failed", "aj_reason": FailureReason.HANDLER_ERROR.value},
    )  # fmt: skip


# -- limits in the log -----------------------------------------------------------------------------


class _Kept(NamedTuple):
    """The last record that was kept back."""

    reason: str
    text: str
    is_refusal: bool = False


class LogLimits(logging.Filter):
    """A filter for so many records of a reason in `LOG_REPEAT` seconds, which logs how many others it kept back.

    It filters until `close`. Records come from threads of handlers too.
    """

    def __init__(self, limits: Iterable[tuple[str, int]]) -> None:
        super().__init__()
        self.most = dict(limits)
        """`[log.limits]`: records by reason."""
        self._throttle: Throttle[_Kept] = Throttle()
        self._lock = threading.Lock()
        log_routing.add_filter(_log, self)

    def refusals(self, reason: str, text: str) -> int:
        """Returns for how many refusals a record of this one stands; 0: no record is written now."""
        kind = "signature" if text.partition(": ")[2].startswith(_SIGNATURES) else ""
        return self._count(f"refused {reason} {kind}", _Kept(reason, text, is_refusal=True), self.most.get(reason, 1))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written. Those of refusals come here after `refusals`."""
        reason, outcome = getattr(record, "aj_reason", ""), getattr(record, "aj_outcome", "")
        most = self.most.get(reason)
        if most is None or outcome not in ("failed", "terminated"):
            return True
        count = self._count(reason, _Kept(reason, record.getMessage()), most)
        if count > 1:
            record.msg, record.args = f"{record.getMessage()} (and {count - 1} more)", ()
            record.aj_count = str(count)
        return count > 0

    def _count(self, key: str, kept: _Kept, most: int) -> int:
        with self._lock:
            return self._throttle.count(key, time.monotonic(), kept, most)

    def tick(self) -> None:
        """Logs how many records were kept back, when that is due. Call it every now and then."""
        self._tell(self._throttle.due)

    def close(self) -> None:
        """Logs at once how many records were kept back."""
        self._tell(self._throttle.rest)
        log_routing.remove_filter(_log, self)

    def _tell(self, kept_by: Callable[[float], list[tuple[_Kept, int, float]]]) -> None:
        with self._lock:
            kept = kept_by(time.monotonic())
        for (reason, text, is_refusal), count, seconds in kept:
            extra = {"aj_reason": reason, "aj_count": str(count)}
            if is_refusal:
                extra["aj_outcome"] = "refused"
            _log.warning(
                "%s %d more in %.0f s, the last: %s", "refused" if is_refusal else f"{reason}:", count, seconds, text,
                extra=extra,
            )  # fmt: skip
