"""The heartbeat of a worker: it shows that the loop runs, and does the worker's periodic work. Ends a worker of which
user code has closed a descriptor, or with requests that no part of it would finish.
"""

from __future__ import annotations

import asyncio
import time

from ajhost.adapters.logs import log_outputs
from ajhost.core.timings import (
    COLLECT_RETRY,
    CONFIRM_INTERVAL,
    HEARTBEAT_INTERVAL,
    PRUNE_INTERVAL,
    UNOWNED_AFTER,
    nanoseconds,
)
from ajhost.ledger.layout import Word
from ajhost.roles.worker.composition import WorkerParts
from ajhost.roles.worker.exit import ExceptionGuard, fail
from ajhost.roles.worker.garbage_collection import Collector
from ajhost.roles.worker.signals import SignalKeeper, name_others

_CONFIRM_NS = nanoseconds(CONFIRM_INTERVAL)
_PRUNE_NS = nanoseconds(PRUNE_INTERVAL)
_UNOWNED_NS = nanoseconds(UNOWNED_AFTER)


class Heartbeat:
    """The periodic work of a worker's loop. The first call of `beat` starts it."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts, self._words, self._loop = parts, parts.ledger.words, parts.loop
        self._exceptions = ExceptionGuard(parts.loop)
        self._signals = SignalKeeper(parts.loop, parts.retirement.ask)
        self._collector = Collector()
        self._collecting: asyncio.TimerHandle | None = None
        self._unowned: set[tuple[int, int]] = set()
        self._confirmed_ns = self._pruned_ns = 0

    def beat(self) -> None:
        """Does the work of one heartbeat, and sets the timer for the next one."""
        parts, words, now_ns = self._parts, self._words, time.monotonic_ns()
        words[Word.HEARTBEAT] = now_ns
        if (lost := parts.descriptors.lost()) is not None:
            fail(None, f"user code has closed {lost}")
        self.count()
        parts.producer.expire(now_ns)
        if now_ns - self._confirmed_ns > _CONFIRM_NS:
            self._confirmed_ns = now_ns
            parts.transport.out.confirm()
            log_outputs.report_lost()
            parts.attempts.limits.tick()
        parts.transport.pause_or_resume()
        parts.consumer.refresh()  # entries may have become free without a slot
        if parts.connection.up.is_set():
            # EPOCH too: the supervisor takes over by it, and a stray write may have changed it
            words[Word.EPOCH] = words[Word.SUBSCRIBED] = parts.transport.epoch
        parts.watchdog.beat()
        self._signals.keep()
        self._collect()
        if now_ns - self._pruned_ns > _PRUNE_NS:
            self._pruned_ns = now_ns
            parts.consumer.ledgers.prune()
            parts.checker.adopt_offset()
            self._exceptions.keep()
            name_others()
            self._check(now_ns)
        self._loop.call_later(HEARTBEAT_INTERVAL, self.beat)

    def from_thread(self) -> None:
        """Writes the heartbeat while the loop may be blocked: by the lifespan's entry or exit, or by `atexit`."""
        self._words[Word.HEARTBEAT] = time.monotonic_ns()

    def count(self) -> None:
        words, counts, checker = self._words, self._parts.responder.counts, self._parts.checker
        words[Word.RECEIVED] = counts.received
        words[Word.COMPLETED] = counts.completed
        words[Word.FAILED] = counts.failed
        words[Word.TERMINATED] = counts.terminated
        words[Word.REFUSED] = counts.refused
        words[Word.ENQUEUED] = counts.enqueued
        words[Word.DEQUEUED] = counts.dequeued
        words[Word.STUCK] = self._parts.executor.stuck
        words[Word.BUSY_NS] = int(counts.busy * 1e9)
        words[Word.UNSIGNED], words[Word.IGNORED] = checker.unsigned, checker.unanswered

    def _collect(self) -> None:
        if self._collecting is not None:
            self._collecting.cancel()
            self._collecting = None
        if self._collector.collect_if_due():  # memory grows fast: the next heartbeat may be too late
            self._collecting = self._loop.call_later(COLLECT_RETRY, self._collect)

    def _check(self, now_ns: int) -> None:
        """Ends the worker if an interrupted step has left a request that no part of it would ever finish."""
        unowned = {
            (index, seq)
            for index, seq in self._parts.ledger.unanswered(now_ns - _UNOWNED_NS)
            if not self._parts.intake.has(index)
        }
        if unowned & self._unowned:
            fail(None, f"{len(unowned)} requests are in the ledger and with nobody")
        self._unowned = unowned
        if self._parts.executor.broken:
            fail(None, "a task of the executor has ended without an answer")
