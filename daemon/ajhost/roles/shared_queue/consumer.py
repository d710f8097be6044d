"""The consumer of the shared queue: by it a worker with a free slot decides which waiting request starts next. It takes
tokens of each queue in turn, tries again for `host_concurrency`, and leaves what is too late to its owner.

The kernel stores a token straight into the header of this process's ledger, so a SIGKILL between two lines loses none.
The token stays there until the request has started: if this process dies or hangs before, the supervisor moves it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from ajhost.adapters.linux import sockets
from ajhost.adapters.linux.host_permits import Permits
from ajhost.core.timings import PERMIT_RETRY, PULL_MARGIN, TOKEN_RECHECK, nanoseconds
from ajhost.ledger.queue_token import SIZE, Token, TokenState, check, token_places, unpack
from ajhost.ledger.view import Ledger
from ajhost.ledger.writer import LedgerWriter
from ajhost.roles.shared_queue.claim import claim
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.shared_queue.token_queues import TokenQueue

_PULL_MARGIN_NS = nanoseconds(PULL_MARGIN)
Origin = tuple[int, int, int]
"""`(serial, entry, seq)` of the entry from which a request was pulled; serial 0: none."""
NO_ORIGIN: Origin = (0, 0, 0)


class ClaimedRequest:
    """A request whose token this process holds, and which has not started. `own`: it is in this process's ledger."""

    __slots__ = ("_at", "_free", "_owner", "last", "own", "received_ns", "token")

    def __init__(self, token: Token, owner: Ledger, at: int, free: list[int], *, own: bool) -> None:
        self.token, self.own = token, own
        self._owner, self._at, self._free = owner, at, free
        self.received_ns = owner.received_ns(token.entry)
        """The time of its receipt by the host (monotonic)."""
        self.last = not free
        """Whether no further token can be held: this request must start at once."""

    def begin(self, start: Callable[[Origin], bool]) -> bool:
        """Starts it: `start(origin)` stores STARTED in this process's ledger, and returns whether it is not revoked.

        False: another process has the request, or its owner answers it. If `start` was called, the caller must release
        its entry. Any thread may call this.
        """
        token, owner = self.token, self._owner
        if self.own:
            mine = start(NO_ORIGIN)
        else:
            mine = not _too_late(token) and check(token, owner) is TokenState.VALID
            mine = mine and start((token.serial, token.entry, token.seq)) and claim(token, owner)
        self._free.append(self._at)
        return mine


class Pulled(Enum):
    STARTED = "a request was started"
    NOTHING = "the queue is empty"
    WAITING = "a token is PENDING; nothing else is pulled until that is decided"
    LIMITED = "a token waits until fewer tasks of its route run on this host"


class Consumer:
    """Takes requests out of the queues while `has_capacity(queue)` is true.

    `start(frame, claimed)` starts a request of another process from its raw frame, `resume(claimed)` one of this
    process, which has its entry. Both must call `claimed.begin` before the handler, at once if it is the `last`. False:
    it was refused.

    From a queue in `permits`, whose route has a limit for the whole host, a request is pulled with a permit, which it
    holds as soon as it starts.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        directory: Path,
        queues: Sequence[TokenQueue],
        loop: asyncio.AbstractEventLoop,
        has_capacity: Callable[[str], bool],
        start: Callable[[bytes, ClaimedRequest], object],
        resume: Callable[[ClaimedRequest], object],
        permits: Mapping[str, Permits] = MappingProxyType({}),
    ) -> None:
        self._places = token_places(ledger)
        self._free = list(range(len(self._places) - 1, -1, -1))
        """Places whose tokens are settled: started, stale, or handed back."""
        self._ledger = ledger
        self.ledgers = LedgerCache(directory, ledger)
        self._queues = list(queues)
        self._loop = loop
        self.has_capacity = has_capacity
        self._start = start
        self._resume = resume
        self._permits = permits
        self._limited: set[str] = set()
        """Queues whose next token waits for a permit."""
        self._retries: dict[str, asyncio.TimerHandle] = {}
        self._listening: set[str] = set()
        self._pending: tuple[Token, TokenQueue, int] | None = None
        self._active = False

    def begin(self) -> None:
        self._active = True
        self.refresh()

    def end(self) -> None:
        """Pulls no more. A PENDING token is still decided."""
        self._active = False
        self.refresh()

    def freed(self) -> None:
        """Pulls again, since a slot of this process became free, and with it perhaps a permit."""
        self._limited.clear()
        self.refresh()

    def refresh(self) -> None:
        """Pulls while there is capacity, then listens to the queues for which some is left. Call it for a free slot."""
        for queue in self._queues:
            wanted = self._active and self._pending is None and self._may_pull(queue.name)
            if wanted and queue.name not in self._listening:
                wanted = self._empty(queue)
            self._listen(queue, wanted)
        if len(self._queues) > 1:
            self._queues.append(self._queues.pop(0))  # no queue is always first

    def _may_pull(self, name: str) -> bool:
        return name not in self._limited and self.has_capacity(name)

    def _listen(self, queue: TokenQueue, wanted: bool) -> None:
        if wanted and queue.name not in self._listening:
            self._listening.add(queue.name)
            self._loop.add_reader(queue.receive, self._readable, queue)
        elif not wanted and queue.name in self._listening:
            self._listening.remove(queue.name)
            self._loop.remove_reader(queue.receive)

    def _readable(self, queue: TokenQueue) -> None:
        if self.has_capacity(queue.name):
            self._pull(queue)
        self.refresh()

    def _empty(self, queue: TokenQueue) -> bool:
        """Pulls while there is capacity. Returns whether the queue is empty and capacity is left."""
        while self._may_pull(queue.name):
            if (pulled := self._pull(queue)) is not Pulled.STARTED:
                return pulled is Pulled.NOTHING
        return False

    def _pull(self, queue: TokenQueue) -> Pulled:
        permits = self._permits.get(queue.name)
        if permits is None:
            return self._receive(queue)
        if not sockets.is_readable(queue.receive):
            return Pulled.NOTHING
        if not permits.take():
            self._wait_for_permit(queue.name)
            return Pulled.LIMITED
        pulled = self._receive(queue)
        if pulled is not Pulled.STARTED:
            permits.give()
        return pulled

    def _wait_for_permit(self, name: str) -> None:
        """Tries again later: the process that holds a permit tells no other when it gives it back."""
        self._limited.add(name)
        if name not in self._retries:
            self._retries[name] = self._loop.call_later(PERMIT_RETRY, self._try_for_permit, name)

    def _try_for_permit(self, name: str) -> None:
        del self._retries[name]
        self._limited.discard(name)
        self.refresh()

    def _receive(self, queue: TokenQueue) -> Pulled:
        while self._pending is None:
            at = self._free[-1]
            try:
                received = sockets.receive(queue.receive, self._places[at])
            except (BlockingIOError, InterruptedError):
                return Pulled.NOTHING
            if received != SIZE:
                if queue.is_shut():
                    # ends this process: the supervisor renews the queue, for the next workers
                    raise BrokenPipeError("somebody has shut down the shared queue of this host")
                return Pulled.NOTHING
            self._free.pop()
            if self._resolve(unpack(self._places[at]), queue, at):
                return Pulled.STARTED
        return Pulled.WAITING

    def _resolve(self, token: Token, queue: TokenQueue, at: int) -> bool:
        """Starts the request of the token at place `at`; False when the token is STALE or PENDING."""
        owner = self.ledgers.get(token.serial)
        verdict = TokenState.STALE if owner is None else check(token, owner)
        if owner is None or verdict is TokenState.STALE or _too_late(token):
            self._free.append(at)
            return False
        if verdict is TokenState.PENDING:
            self._look_later(token, queue, at)
            return False
        own = owner is self._ledger
        claimed = ClaimedRequest(token, owner, at, self._free, own=own)
        if own:
            return self._resume(claimed) is not False
        frame = owner.frame(token.entry)
        # while this process did not run, the owner may have released the entry and used it for another request
        if check(token, owner) is not TokenState.VALID:
            self._free.append(at)
            return False
        return self._start(frame, claimed) is not False

    def _look_later(self, token: Token, queue: TokenQueue, at: int) -> None:
        self._pending = (token, queue, at)
        self._loop.call_later(TOKEN_RECHECK, self._look_again)

    def _look_again(self) -> None:
        if self._pending is None:
            return
        (token, queue, at), self._pending = self._pending, None
        permits = self._permits.get(queue.name)
        if self.has_capacity(queue.name) and (permits is None or permits.take()):
            if not self._resolve(token, queue, at) and permits is not None:
                permits.give()
        elif not self._hand_back(token, queue, at):
            self._look_later(token, queue, at)
        self.refresh()

    def _hand_back(self, token: Token, queue: TokenQueue, at: int) -> bool:
        """Sends the token again, since other requests took the slots meanwhile. False: the queue is full."""
        try:
            sockets.send(queue.send, token.pack())
        except (BlockingIOError, InterruptedError):
            return False
        # after the send: a kill in between leaves two tokens, of which the later is found STALE, and not none
        self._places[at][:] = bytes(SIZE)
        self._free.append(at)
        return True


def _too_late(token: Token) -> bool:
    return token.deadline_ns < time.monotonic_ns() + _PULL_MARGIN_NS
