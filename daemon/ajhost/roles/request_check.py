"""Checks requests for workers and for the last resort. It answers `unknown task type:`, `bad request:`, when the
deadline has passed already `deadline exceeded:`, and where a check itself raises `host error:`, by what others find:
`protocol/task_record.py`, `signature.py` and `subjects.py`, `core/route_match.py`, which chooses the handler, and
`core/deadline_budget.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from ajhost.core.clock_offset import ClockOffset, Skew
from ajhost.core.deadline_budget import budget
from ajhost.core.report_throttle import Throttle
from ajhost.core.route_match import Routes
from ajhost.core.timings import ANSWER_MARGIN, SKEW_PLAUSIBLE, SKEW_WARNING, SKEW_WARNING_INTERVAL
from ajhost.ledger.layout import MAX_REPLY
from ajhost.protocol.outcome import Failed
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.reply_encoding import sanitise
from ajhost.protocol.request_headers import LONGEST_KNOWN, known_deadline, read_deadline
from ajhost.protocol.signature import distrust, read_key
from ajhost.protocol.subjects import LONGEST_REPLY_SUBJECT, reply_subjects, route_of
from ajhost.protocol.task_record import TaskRecord, read_task
from ajhost.protocol.timestamps import render_seconds
from ajhost.settings.sections import HandlerSettings, SignatureSettings

_log = logging.getLogger("ajhost.requests")
_KNOWN = 1024
_LONGEST_INBOX = 64
"""Bytes of a requester's inbox that is remembered; a router's has 29."""
_LONGEST_SUBJECT = 512
"""Bytes of a subject that is remembered. Those of routes are shorter; a false server's may be 64 kB."""
_SECOND_NS = 1_000_000_000
_SHOWN = 80


CheckedRequest = tuple[TaskRecord, int, float]
"""A request that can be served: its record, the handler (counted in the configured order), and the deadline in
monotonic seconds. A plain tuple, since it is made for every request.
"""


def describe_signatures(settings: SignatureSettings) -> str:
    """Says, for the log, whether tasks must be signed, by how many keys, and how old they may be."""
    if not settings.keys:
        return "signatures are not verified: there are no keys"
    age = f", tasks older than {settings.max_age:g} s are refused" if settings.max_age else ""
    return f"signatures are verified with {len(settings.keys)} keys{age}"


def too_large(reply: bytes, size: int) -> str:
    """Returns why a request is refused whose reply subject, or which as a whole, no ledger of this host can hold."""
    if len(reply) > MAX_REPLY:
        return FailureReason.BAD_REQUEST.text(f"a reply subject of more than {MAX_REPLY} bytes")
    return FailureReason.BAD_REQUEST.text(f"{size} bytes are more than this host can hold")


About = tuple[TaskRecord | None, int | None]
"""What is known of a request that is refused: its task, and its handler."""
NOTHING_KNOWN: About = (None, None)


class RequestChecker:
    """Reads requests, and decides what does not depend on how busy the host is."""

    def __init__(
        self,
        handlers: Sequence[HandlerSettings],
        default_timeout: float,
        signature: SignatureSettings,
        reply_prefixes: Sequence[str] = (),
        offset: ClockOffset | None = None,
    ) -> None:
        """`offset`: what the host's processes know of the clock together; None for a process that is alone."""
        self._timeouts = [h.timeout for h in handlers]
        self._index = {h.route: i for i, h in enumerate(handlers)}
        self._routes = Routes(self._index)
        self._default = default_timeout
        self._keys = [read_key(key) for key in signature.keys]
        self._max_age_ns = int(signature.max_age * 1e9)
        self._throttle: Throttle[str] = Throttle()
        self._may_answer = reply_subjects(reply_prefixes).match
        self._inboxes: set[bytes] = set()
        """Requesters that were found answerable, by their reply subjects without the last word."""
        self.unsigned = self.unanswered = 0
        """Requests whose signature was refused, and whose reply subject was."""
        self._known: dict[tuple[bytes, str], int | None] = {}
        self._offset = offset
        self._skew = Skew(0.0 if offset is None else offset.ahead)
        self._skew_told = -SKEW_WARNING_INTERVAL

    def answerable(self, reply: bytes) -> bool:
        """Whether a reply subject may be answered. A request with another is not run, but `unanswerable`.

        A requester's reply subjects differ in their last word alone (nats.go v1.31, `respToken`), so the pattern, whose
        match costs more than a request's ledger entry, is matched once for each requester.
        """
        inbox, _, word = reply.rpartition(b".")
        plain = word.isalnum() and len(reply) <= LONGEST_REPLY_SUBJECT
        if plain and inbox in self._inboxes:
            return True
        if self._may_answer(reply) is None:
            return False
        if plain and len(inbox) <= _LONGEST_INBOX:
            if len(self._inboxes) >= _KNOWN:
                self._inboxes.clear()
            self._inboxes.add(inbox)
        return True

    def check(self, subject: bytes, header: bytes, body: bytes, now: float, wall_ns: int) -> CheckedRequest | Failed:
        """Returns what the request asks for, or the refusal that answers it. Raises nothing: each has an answer.

        `now` (monotonic seconds) and `wall_ns` (Unix nanoseconds) are one moment: when the request is read.
        """
        try:
            try:
                header_ns = (known_deadline if len(header) <= LONGEST_KNOWN else read_deadline)(header)
                record = read_task(body)
            except ValueError as error:
                return Failed(sanitise(FailureReason.BAD_REQUEST.text(str(error))))
            if header_ns is None:
                record.without_deadline = True
            key = (subject, record.type)
            try:
                handler = self._known[key]
            except KeyError:
                handler = self._find(key)
            if handler is None:
                return Failed.because(FailureReason.UNKNOWN_TASK_TYPE, f"{record.type} has no handler here")
            if self._keys:
                now_ns = wall_ns - int(self._skew.ahead * 1e9)
                if (reason := distrust(record, self._keys, self._max_age_ns, now_ns)) is not None:
                    self.unsigned += 1
                    return Failed.because(FailureReason.BAD_REQUEST, reason)
            tried, clock = record.tried_ns, self._skew
            deadline, skew = budget(
                header_ns, tried, wall_ns, now, self._timeouts[handler], self._default, ANSWER_MARGIN,
                clock.ahead,
            )  # fmt: skip
            # first the comparison that mostly shows that there is nothing to learn
            if (skew < clock.least or now >= clock.until) and tried is not None and clock.observe(skew, now):
                self._learned(now)
            if deadline <= now:
                return Failed.because(FailureReason.DEADLINE_EXCEEDED, _passed(header_ns or wall_ns, tried, wall_ns))
            return record, handler, deadline
        except Exception as error:
            return self._failed(error)

    def about(self, subject: bytes, body: bytes) -> About:
        """Returns the task of a request that was refused, and its handler, as far as they can be read."""
        try:
            record = read_task(body)
            key = (subject, record.type)
            return record, self._known[key] if key in self._known else self._find(key)
        except Exception:  # logged when the request was checked
            return NOTHING_KNOWN

    def adopt_offset(self) -> None:
        """Takes over what another process has learned of the clock. Call it every now and then."""
        if self._offset is not None:
            self._skew.ahead = self._offset.ahead

    def _failed(self, error: Exception) -> Failed:
        """Logs and answers an error of the check itself (a library, memory, a signal handler that raises)."""
        if count := self._throttle.count(f"broken {type(error).__name__}", time.monotonic()):
            _log.error("%d requests could not be checked", count, exc_info=error)
        return Failed.because(
            FailureReason.HOST_ERROR, f"the request cannot be checked: {type(error).__name__}: {error}"
        )

    def unanswerable(self, reply: bytes) -> None:
        """Counts a request whose reply subject is not `answerable`, and logs it once in a while.

        Its sender wants this host to publish to a subject to which the sender itself may not publish.
        """
        self.unanswered += 1
        if count := self._throttle.count("reply", time.monotonic()):
            _log.warning(
                "%d requests ignored: their reply subject is none that a host answers; the last is %s",
                count,
                reply[:_SHOWN].decode("ascii", "backslashreplace"),
            )

    def _learned(self, now: float) -> None:
        if self._offset is not None:
            self._offset.learn(self._skew.ahead)
        ahead = self._skew.ahead or self._skew.implausible
        if ahead > SKEW_WARNING and now - self._skew_told >= SKEW_WARNING_INTERVAL:
            self._skew_told = now
            what = "corrected for" if ahead <= SKEW_PLAUSIBLE else "too much to correct for: set it right"
            _log.warning("this clock is %.1f s ahead of the routers'; %s", ahead, what)

    def _find(self, key: tuple[bytes, str]) -> int | None:
        try:
            name = self._routes.match(route_of(key[0].decode()), key[1])
        except ValueError:
            name = None
        found = None if name is None else self._index[name]
        if len(key[0]) <= _LONGEST_SUBJECT:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[key] = found
        return found


def _passed(header_ns: int, tried_ns: int | None, wall_ns: int) -> str:
    """Says by how much a deadline had passed. Shows both clocks if the request was sent in time, and long ago."""
    passed = max((wall_ns - header_ns) / _SECOND_NS, 0.0)
    text = f"it had passed {passed:.0f} s" if passed >= 1000 else f"it had passed {passed:.3g} s"
    text += " before the request was read"
    if tried_ns is not None and tried_ns <= header_ns and wall_ns - tried_ns > SKEW_PLAUSIBLE * _SECOND_NS:
        sent, read = render_seconds(tried_ns), render_seconds(wall_ns)
        text += f"; sent at {sent} by its router's clock, read at {read} by this machine's"
    return text
