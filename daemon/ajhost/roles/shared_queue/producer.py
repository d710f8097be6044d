"""The producer of the shared queue: requests wait in its ledger, their tokens in the queue, until a deadline passes.
Says whether as many wait as `backlog` allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

from ajhost.adapters.linux import sockets
from ajhost.core.timings import FAR_FUTURE_NS, RECLAIM_PAUSE
from ajhost.ledger.layout import State
from ajhost.ledger.queue_token import Token
from ajhost.ledger.writer import LedgerWriter
from ajhost.roles.request_check import CheckedRequest
from ajhost.roles.shared_queue.token_queues import DEFAULT, TokenQueue

CachedCheck = tuple[bytes, CheckedRequest]
"""The reply subject of a waiting request, and the result of its check."""
_REMEMBERED, _REMEMBERED_SIZE = 256, 4096
"""For how many waiting requests, of which size (bytes), the result of the check is kept besides the frame."""


class Outbox:
    """The tokens for one queue: those for which the kernel has no room wait here, in order."""

    def __init__(self, queue: TokenQueue, loop: asyncio.AbstractEventLoop, *, renews: bool) -> None:
        """`renews`: a queue that a process has shut down is renewed; without that it is an error."""
        self._queue, self._renews = queue, renews
        self._loop = loop
        self._watched: tuple[int, socket.socket] | None = None
        """The renewals of the queue, and its end; a duplicate, if the queue may be renewed while the loop has it."""
        self._waiting: deque[tuple[bytes, Callable[[], None]]] = deque()

    def send(self, token: Token, sent: Callable[[], None]) -> None:
        """Sends a token as soon as the kernel has room, then calls `sent`."""
        datagram = token.pack()
        if self._waiting or not self._try(datagram):
            self._waiting.append((datagram, sent))
            self._watch()
        else:
            sent()

    def _try(self, datagram: bytes) -> bool:
        try:
            sockets.send(self._queue.send, datagram)
        except (BlockingIOError, InterruptedError):
            return False
        except BrokenPipeError:
            if not self._renews:
                raise
            self._queue.renew()
            return self._try(datagram)
        return True

    def _watch(self) -> None:
        if self._watched is not None and self._watched[0] == self._queue.renewals:
            return
        self._unwatch()
        end = self._queue.send
        if self._renews:
            with contextlib.suppress(OSError):  # no descriptor is free
                end = end.dup()
        self._watched = self._queue.renewals, end
        self._loop.add_writer(end, self._writable)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.remove_writer(self._watched[1])
            if self._watched[1] is not self._queue.send:
                self._watched[1].close()
            self._watched = None

    def _writable(self) -> None:
        while self._waiting:
            if not self._try(self._waiting[0][0]):
                self._watch()
                return
            self._waiting.popleft()[1]()
        self._unwatch()


class Producer:
    """Puts requests of this process into the shared queue.

    `expired(index)` is called for a request whose deadline passed before a worker started it. It must answer, and have
    the entry released.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        queues: Sequence[TokenQueue],
        loop: asyncio.AbstractEventLoop,
        expired: Callable[[int], None],
        *,
        renews: bool = False,
    ) -> None:
        """`renews`: as for an `Outbox`."""
        self._ledger = ledger
        self._loop, self._renews = loop, renews
        self._outboxes: dict[str, Outbox] = {}
        self.add_queues(queues)
        self._expired = expired
        self._reclaim_at = 0.0
        self._enqueued: dict[int, tuple[int, int, CachedCheck | None]] = {}
        """By entry, the oldest first: seq, deadline, and the result of the check if it is kept."""

    def add_queues(self, queues: Sequence[TokenQueue]) -> None:
        """Takes queues that a reload added."""
        for queue in queues:
            if queue.name not in self._outboxes:
                self._outboxes[queue.name] = Outbox(queue, self._loop, renews=self._renews)

    @property
    def count(self) -> int:
        """How many requests wait, including those that were claimed since the last `expire`."""
        return len(self._enqueued)

    def has(self, index: int) -> bool:
        return index in self._enqueued

    def waiting(self) -> list[int]:
        """Returns the entries of requests that wait here and that no process has started."""
        self._release_started()
        return list(self._enqueued)

    def hold(self, index: int, frame: bytes | None, deadline_ns: int, cached: CachedCheck | None = None) -> bool:
        """Keeps a RECEIVED request without a token. `frame`: the frame, if it must be copied to the store first.

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
        """As `hold`, and sends a token: a worker with a free slot starts the request.

        `cached` is kept for `withdraw`, unless many wait already.
        """
        if not self.hold(index, frame, deadline_ns, cached):
            return False
        seq, _ = self._ledger.state(index)
        outbox = self._outboxes.get(queue) or self._outboxes[DEFAULT]
        outbox.send(Token(self._ledger.serial, index, seq, deadline_ns), lambda: self._sent(index, seq))
        return True

    def _sent(self, index: int, seq: int) -> None:
        # while the token waited for room its request may have expired, and the entry may be another request's
        if self._ledger.state(index) == (seq, State.RECEIVED):
            self._ledger.queue(index, seq)

    def full(self, limit: int) -> bool:
        """Whether `limit` requests wait. Releases those that were started first, at most once in `RECLAIM_PAUSE`."""
        if len(self._enqueued) >= limit and (now := time.monotonic()) >= self._reclaim_at:
            self._release_started()
            self._reclaim_at = now + RECLAIM_PAUSE
        return len(self._enqueued) >= limit

    def withdraw(self, index: int) -> CachedCheck | None:
        """Forgets a request that this process starts itself. Returns the result of its check, if it was kept."""
        queued = self._enqueued.pop(index, None)
        return None if queued is None else queued[2]

    def take_back(self, index: int) -> bool:
        """Forgets a request that this process is about to refuse. False: another has it, and its entry is released."""
        self._enqueued.pop(index, None)
        mine = self._ledger.take_back(index, self._ledger.state(index)[0])
        if not mine:
            self._ledger.release(index)
        return mine

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
        """Releases requests that other workers started, and gives up those past their deadlines, at each heartbeat."""
        self._release_started()
        for index in [index for index, queued in self._enqueued.items() if queued[1] <= now_ns]:
            if self.take_back(index):
                self._expired(index)

    def reject_waiting(self) -> None:
        """Gives up every request that is not started, as if its deadline had passed."""
        self.expire(FAR_FUTURE_NS)
