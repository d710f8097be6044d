"""Pulling: a token is received straight into our ledger's header, so that no kill between two lines loses it.

It stays there until the request has begun: who hangs or dies before that has not started it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from ajhost.adapters.linux import sockets
from ajhost.core.timings import PULL_MARGIN, TOKEN_RECHECK, nanoseconds
from ajhost.ledger.queue_token import SIZE, Token, TokenState, check, token_places, unpack
from ajhost.ledger.view import Ledger
from ajhost.ledger.writer import LedgerWriter
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.shared_queue.queue import TokenQueue

_PULL_MARGIN_NS = nanoseconds(PULL_MARGIN)


Origin = tuple[int, int, int]
"""`(serial, entry, seq)` of the entry that a request was pulled from; serial 0: none."""
NO_ORIGIN: Origin = (0, 0, 0)


class ClaimedRequest:
    """A request whose token we hold, and which has not begun. `own`: it waited in our own ledger."""

    __slots__ = ("_at", "_free", "_owner", "last", "own", "received_ns", "token")

    def __init__(self, token: Token, owner: Ledger, at: int, free: list[int], *, own: bool) -> None:
        self.token, self.own = token, own
        self._owner, self._at, self._free = owner, at, free
        self.received_ns = owner.received_ns(token.entry)
        """When it came (monotonic)."""
        self.last = not free
        """Whether no further token can be held: this one must begin at once."""

    def begin(self, start: Callable[[Origin], bool]) -> bool:
        """Begins it: `start(origin)` writes STARTED into our ledger and says whether nobody spoke for that entry.

        False: by now somebody else has the request, or its owner is about to answer; what `start` wrote, if it was
        called, must be taken back. For whichever thread begins it.
        """
        token, owner = self.token, self._owner
        if self.own:
            mine = start(NO_ORIGIN)
        else:
            mine = not _too_late(token) and check(token, owner) is TokenState.VALID
            mine = mine and start((token.serial, token.entry, token.seq))
            # after the store: the supervisor, which stopped us, saw our entry, or we see its word
            mine = mine and not owner.is_revoked(token.entry, token.seq)
            if mine:
                owner.claim(token.entry, token.seq)
        self._free.append(self._at)
        return mine


class Pulled(Enum):
    """What one attempt gave."""

    STARTED = "a request was started"
    NOTHING = "the queue is empty"
    WAITING = "a token is undecided; nothing else is pulled until it is"


class Consumer:
    """Takes requests out of the queues while `has_capacity(queue)` says that one could start.

    `start(frame, claimed)` starts a pulled request from its raw frame, `resume(claimed)` one of our own, which has its
    entry. Each has to call `claimed.begin` when the request begins, and at once if it is the `last`.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        directory: Path,
        queues: Sequence[TokenQueue],
        loop: asyncio.AbstractEventLoop,
        has_capacity: Callable[[str], bool],
        start: Callable[[bytes, ClaimedRequest], None],
        resume: Callable[[ClaimedRequest], None],
    ) -> None:
        self._places = token_places(ledger)
        self._free = list(range(len(self._places) - 1, -1, -1))
        """Places whose tokens are settled: started, stale, or handed back."""
        self._ledger = ledger
        self._ledgers = LedgerCache(directory, ledger)
        self._queues = list(queues)
        self._loop = loop
        self._has_capacity = has_capacity
        self._start = start
        self._resume = resume
        self._listening: set[str] = set()
        self._pending: tuple[Token, TokenQueue, int] | None = None
        self._active = False

    def begin(self) -> None:
        """Starts to pull."""
        self._active = True
        self.refresh()

    def end(self) -> None:
        """Pulls no more; an undecided token is still settled."""
        self._active = False
        self.refresh()

    def prune(self) -> None:
        """Forgets ledgers whose files are gone. Call it about once a second."""
        self._ledgers.prune()

    def refresh(self) -> None:
        """Pulls what has room, and listens to the queues that have room left. Call it when a slot was freed."""
        for queue in self._queues:
            wanted = self._active and self._pending is None and self._has_capacity(queue.name)
            if wanted and queue.name not in self._listening:
                wanted = self._empty(queue)
            self._listen(queue, wanted)
        if len(self._queues) > 1:
            self._queues.append(self._queues.pop(0))  # no queue is always first

    def _listen(self, queue: TokenQueue, wanted: bool) -> None:
        if wanted and queue.name not in self._listening:
            self._listening.add(queue.name)
            self._loop.add_reader(queue.receive, self._readable, queue)
        elif not wanted and queue.name in self._listening:
            self._listening.remove(queue.name)
            self._loop.remove_reader(queue.receive)

    def _readable(self, queue: TokenQueue) -> None:
        if self._has_capacity(queue.name):
            self._pull(queue)
        self.refresh()

    def _empty(self, queue: TokenQueue) -> bool:
        """Pulls while there is room; whether the queue was found empty with room left."""
        while self._has_capacity(queue.name):
            if (pulled := self._pull(queue)) is not Pulled.STARTED:
                return pulled is Pulled.NOTHING
        return False

    def _pull(self, queue: TokenQueue) -> Pulled:
        while self._pending is None:
            at = self._free[-1]
            try:
                received = sockets.receive(queue.receive, self._places[at])
            except (BlockingIOError, InterruptedError):
                return Pulled.NOTHING
            if received != SIZE:
                return Pulled.NOTHING
            self._free.pop()
            if self._resolve(unpack(self._places[at]), queue, at):
                return Pulled.STARTED
        return Pulled.WAITING

    def _resolve(self, token: Token, queue: TokenQueue, at: int) -> bool:
        """Starts what a token names, which lies at place `at`; False when it is stale or not decided yet."""
        owner = self._ledgers.get(token.serial)
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
            self._resume(claimed)
            return True
        frame = owner.frame(token.entry)
        # while we were not running its owner may have given it up, and the entry may be another request's by now
        if check(token, owner) is not TokenState.VALID:
            self._free.append(at)
            return False
        self._start(frame, claimed)
        return True

    def _look_later(self, token: Token, queue: TokenQueue, at: int) -> None:
        self._pending = (token, queue, at)
        self._loop.call_later(TOKEN_RECHECK, self._look_again)

    def _look_again(self) -> None:
        if self._pending is None:
            return
        (token, queue, at), self._pending = self._pending, None
        if self._has_capacity(queue.name):
            self._resolve(token, queue, at)
        elif not self._hand_back(token, queue, at):
            self._look_later(token, queue, at)
        self.refresh()

    def _hand_back(self, token: Token, queue: TokenQueue, at: int) -> bool:
        """Our own requests took the room meanwhile: whoever has some shall have the token. False: the queue is full."""
        try:
            sockets.send(queue.send, token.pack())
        except (BlockingIOError, InterruptedError):
            return False
        # after the send: a kill in between gives two tokens, of which the later is found taken, rather than none
        self._places[at][:] = bytes(SIZE)
        self._free.append(at)
        return True


def _too_late(token: Token) -> bool:
    return token.deadline_ns < time.monotonic_ns() + _PULL_MARGIN_NS
