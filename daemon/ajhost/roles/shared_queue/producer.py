"""Lending: requests that wait in our ledger's store while their tokens go round."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from ajhost.adapters.linux import sockets
from ajhost.core.timings import FAR_FUTURE_NS
from ajhost.ledger.layout import State
from ajhost.ledger.queue_token import Token
from ajhost.ledger.writer import LedgerWriter
from ajhost.roles.request_check import CheckedRequest
from ajhost.roles.shared_queue.queue import DEFAULT, TokenQueue

CachedCheck = tuple[bytes, CheckedRequest]
"""A waiting request's reply subject, and what it asks for."""
_REMEMBERED, _REMEMBERED_SIZE = 256, 4096
"""How many waiting requests, and of what size (bytes), are kept ready to run besides their frames."""


_RECLAIM_PAUSE = 0.002
"""Seconds: looking at a thousand entries takes a tenth of it."""


class Outbox:
    """Tokens on their way into one queue; what the kernel has no room for waits here, in order."""

    def __init__(self, queue: TokenQueue, loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._loop = loop
        self._waiting: deque[tuple[bytes, Callable[[], None]]] = deque()

    def send(self, token: Token, sent: Callable[[], None]) -> None:
        """Sends a token now or as soon as there is room, then calls `sent`."""
        datagram = token.pack()
        if self._waiting or not self._try(datagram):
            if not self._waiting:
                self._loop.add_writer(self._queue.send, self._writable)
            self._waiting.append((datagram, sent))
        else:
            sent()

    def _try(self, datagram: bytes) -> bool:
        try:
            sockets.send(self._queue.send, datagram)
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _writable(self) -> None:
        while self._waiting:
            if not self._try(self._waiting[0][0]):
                return
            self._waiting.popleft()[1]()
        self._loop.remove_writer(self._queue.send)


class Producer:
    """What this process enqueues to the shared queue, from the store of its own ledger.

    `expired(index)` is called for a request whose deadline came before anybody started it; it must answer and have
    the entry released.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        queues: Sequence[TokenQueue],
        loop: asyncio.AbstractEventLoop,
        expired: Callable[[int], None],
    ) -> None:
        self._ledger = ledger
        self._loop = loop
        self._outboxes = {queue.name: Outbox(queue, loop) for queue in queues}
        self._expired = expired
        self._reclaim_at = 0.0
        self._enqueued: dict[int, tuple[int, int, CachedCheck | None]] = {}
        """Seq, deadline and what is known of the request, by its entry; the oldest first."""

    def add_queues(self, queues: Sequence[TokenQueue]) -> None:
        """Queues that a reload added."""
        for queue in queues:
            if queue.name not in self._outboxes:
                self._outboxes[queue.name] = Outbox(queue, self._loop)

    @property
    def count(self) -> int:
        """How many requests of ours wait for somebody to start them, as far as known without looking."""
        return len(self._enqueued)

    def has(self, index: int) -> bool:
        """Whether the request of that entry waits here."""
        return index in self._enqueued

    def hold(
        self, index: int, frame: bytes | None, deadline_ns: int, cached: CachedCheck | None = None
    ) -> bool:
        """Keeps a RECEIVED request without telling anybody; `frame` when it must be copied to the store first.

        False: the store is full.
        """
        ledger = self._ledger
        if frame is not None and not ledger.keep(index, frame):
            return False
        ledger.set_deadline(index, deadline_ns)
        if len(self._enqueued) >= _REMEMBERED or frame is None or len(frame) > _REMEMBERED_SIZE:
            cached = None
        self._enqueued[index] = ledger.state(index)[0], deadline_ns, cached
        return True

    def enqueue(
        self, index: int, frame: bytes | None, queue: str, deadline_ns: int, cached: CachedCheck | None = None
    ) -> bool:
        """As `hold`, and sends a token for it: whoever has a free slot starts it.

        What is `cached` of it is remembered for `withdraw`, unless many wait already.
        """
        if not self.hold(index, frame, deadline_ns, cached):
            return False
        seq, _ = self._ledger.state(index)
        outbox = self._outboxes.get(queue) or self._outboxes[DEFAULT]
        outbox.send(Token(self._ledger.serial, index, seq, deadline_ns), lambda: self._sent(index, seq))
        return True

    def _sent(self, index: int, seq: int) -> None:
        # while it waited for room it may have expired, and its entry may be another request's by now
        if self._ledger.state(index) == (seq, State.RECEIVED):
            self._ledger.queue(index, seq)

    def full(self, limit: int) -> bool:
        """Whether `limit` requests of ours wait. Looks whether others have started some when it seems so, though not
        for each of a burst."""
        if len(self._enqueued) >= limit and (now := time.monotonic()) >= self._reclaim_at:
            self._release_started()
            self._reclaim_at = now + _RECLAIM_PAUSE
        return len(self._enqueued) >= limit

    def withdraw(self, index: int) -> CachedCheck | None:
        """We hold the token of a request of ours, and start it ourselves: it waits no more. What is known of it."""
        lent = self._enqueued.pop(index, None)
        return None if lent is None else lent[2]

    def _release_started(self) -> None:
        ledger = self._ledger
        gone = [
            index
            for index, (seq, _, _) in self._enqueued.items()
            if ledger.is_claimed(index, seq) or ledger.is_revoked(index, seq)
        ]
        for index in gone:
            del self._enqueued[index]
            ledger.release(index)

    def expire(self, now_ns: int) -> None:
        """Frees what others started, and gives up what is past its deadline. Call it at every beat."""
        self._release_started()
        for index in [index for index, lent in self._enqueued.items() if lent[1] <= now_ns]:
            del self._enqueued[index]
            self._expired(index)

    def reject_waiting(self) -> None:
        """Gives up everything that nobody has started, as if its deadline had come."""
        self.expire(FAR_FUTURE_NS)
