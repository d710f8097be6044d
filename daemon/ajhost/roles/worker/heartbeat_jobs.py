"""What a worker does at each heartbeat besides replies and queue: counters, garbage collection, checks of itself."""

from __future__ import annotations

import asyncio

from ajhost.core.timings import COLLECT_RETRY, PRUNE_INTERVAL, UNOWNED_AFTER, nanoseconds
from ajhost.ledger.layout import Word
from ajhost.ledger.writer import LedgerWriter
from ajhost.roles.request_check import RequestChecker
from ajhost.roles.shared_queue.consumer import Consumer
from ajhost.roles.worker.executor import Executor
from ajhost.roles.worker.fail_stop import ExceptionGuard, fail
from ajhost.roles.worker.garbage_collection import Collector
from ajhost.roles.worker.intake import Intake
from ajhost.roles.worker.responder import Responder
from ajhost.roles.worker.signals import name_others

_PRUNE_NS = nanoseconds(PRUNE_INTERVAL)
_UNOWNED_NS = nanoseconds(UNOWNED_AFTER)


class HeartbeatJobs:
    """`tick` is called at each heartbeat."""

    def __init__(
        self,
        ledger: LedgerWriter,
        responder: Responder,
        executor: Executor,
        intake: Intake,
        checker: RequestChecker,
        consumer: Consumer,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ledger, self._responder, self._executor, self._intake = ledger, responder, executor, intake
        self._checker, self._consumer, self._loop = checker, consumer, loop
        self._exceptions = ExceptionGuard(loop)
        self._collector = Collector()
        self._collecting: asyncio.TimerHandle | None = None
        self._unowned: set[tuple[int, int]] = set()
        self._pruned_ns = 0

    def tick(self, now_ns: int) -> None:
        """Collects garbage at each heartbeat, and does the rest about once a second."""
        self._collect()
        if now_ns - self._pruned_ns > _PRUNE_NS:
            self._pruned_ns = now_ns
            self._consumer.prune()
            self._checker.adopt_offset()
            self._exceptions.keep()
            name_others()
            self._check(now_ns)

    def count(self) -> None:
        """Writes the counts to the ledger."""
        words, counts = self._ledger.words, self._responder.counts
        words[Word.RECEIVED] = counts.received
        words[Word.COMPLETED] = counts.completed
        words[Word.FAILED] = counts.failed
        words[Word.TERMINATED] = counts.terminated
        words[Word.REFUSED] = counts.refused
        words[Word.ENQUEUED] = counts.enqueued
        words[Word.DEQUEUED] = counts.dequeued
        words[Word.STUCK] = self._executor.stuck
        words[Word.BUSY_NS] = int(counts.busy * 1e9)
        words[Word.UNSIGNED], words[Word.IGNORED] = self._checker.unsigned, self._checker.unanswered

    def _collect(self) -> None:
        if self._collecting is not None:
            self._collecting.cancel()
            self._collecting = None
        if self._collector.look():  # memory grows fast, and the next heartbeat is far
            self._collecting = self._loop.call_later(COLLECT_RETRY, self._collect)

    def _check(self, now_ns: int) -> None:
        """Ends the worker if an interrupted step has left a request that no part of it would ever finish."""
        unowned = {
            (index, seq)
            for index, seq in self._ledger.unanswered(now_ns - _UNOWNED_NS)
            if not self._intake.has(index)
        }
        if unowned & self._unowned:
            fail(None, f"{len(unowned)} requests are in the ledger and with nobody")
        self._unowned = unowned
        if self._executor.broken:
            fail(None, "a task of the executor has ended without an answer")
