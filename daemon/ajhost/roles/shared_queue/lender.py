"""Lending: requests that wait in our ledger's store while their tokens go round."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from ajhost.adapters import sockets
from ajhost.core.layout import State
from ajhost.core.own_ledger import OwnLedger
from ajhost.core.token import Token
from ajhost.roles.judge import Judged
from ajhost.roles.shared_queue.lane import GENERAL, Lane

Known = tuple[bytes, Judged]
"""A waiting request's reply subject, and what it asks for."""
_REMEMBERED, _REMEMBERED_SIZE = 256, 4096
"""How many waiting requests, and of what size (bytes), are kept ready to run besides their frames."""


class Outbox:
    """Tokens on their way into one lane; what the kernel has no room for waits here, in order."""

    def __init__(self, lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
        self._lane = lane
        self._loop = loop
        self._waiting: deque[tuple[bytes, Callable[[], None]]] = deque()

    def send(self, token: Token, sent: Callable[[], None]) -> None:
        """Sends a token now or as soon as there is room, then calls `sent`."""
        datagram = token.pack()
        if self._waiting or not self._try(datagram):
            if not self._waiting:
                self._loop.add_writer(self._lane.send, self._writable)
            self._waiting.append((datagram, sent))
        else:
            sent()

    def _try(self, datagram: bytes) -> bool:
        try:
            sockets.send(self._lane.send, datagram)
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _writable(self) -> None:
        while self._waiting:
            if not self._try(self._waiting[0][0]):
                return
            self._waiting.popleft()[1]()
        self._loop.remove_writer(self._lane.send)


class Lender:
    """What this process lends to the shared queue, from the store of its own ledger.

    `expired(index)` is called for a request whose deadline came before anybody started it; it must answer and have
    the entry released.
    """

    def __init__(
        self,
        ledger: OwnLedger,
        lanes: Sequence[Lane],
        loop: asyncio.AbstractEventLoop,
        expired: Callable[[int], None],
    ) -> None:
        self._ledger = ledger
        self._loop = loop
        self._outboxes = {lane.name: Outbox(lane, loop) for lane in lanes}
        self._expired = expired
        self._lent: dict[int, tuple[int, int, Known | None]] = {}
        """Seq, deadline and what is known of the request, by its entry; the oldest first."""

    def learn(self, lanes: Sequence[Lane]) -> None:
        """Lanes that a reload added."""
        for lane in lanes:
            if lane.name not in self._outboxes:
                self._outboxes[lane.name] = Outbox(lane, self._loop)

    @property
    def count(self) -> int:
        """How many requests of ours wait for somebody to start them, as far as known without looking."""
        return len(self._lent)

    def hold(self, index: int, frame: bytes | None, deadline_ns: int, known: Known | None = None) -> bool:
        """Keeps a RECEIVED request without telling anybody; `frame` when it must be copied to the store first.

        False: the store is full.
        """
        ledger = self._ledger
        if frame is not None and not ledger.keep(index, frame):
            return False
        ledger.set_deadline(index, deadline_ns)
        if len(self._lent) >= _REMEMBERED or frame is None or len(frame) > _REMEMBERED_SIZE:
            known = None
        self._lent[index] = ledger.state(index)[0], deadline_ns, known
        return True

    def lend(
        self, index: int, frame: bytes | None, lane: str, deadline_ns: int, known: Known | None = None
    ) -> bool:
        """As `hold`, and sends a token for it: whoever has a free slot starts it.

        What is `known` of it is remembered for `regain`, unless many wait already.
        """
        if not self.hold(index, frame, deadline_ns, known):
            return False
        seq, _ = self._ledger.state(index)
        outbox = self._outboxes.get(lane) or self._outboxes[GENERAL]
        outbox.send(Token(self._ledger.serial, index, seq, deadline_ns), lambda: self._sent(index, seq))
        return True

    def _sent(self, index: int, seq: int) -> None:
        # while it waited for room it may have expired, and its entry may be another request's by now
        if self._ledger.state(index) == (seq, State.RECEIVED):
            self._ledger.queue(index, seq)

    def full(self, limit: int) -> bool:
        """Whether `limit` requests of ours wait; looks whether others have started some only when it seems so."""
        if len(self._lent) >= limit:
            self._reclaim()
        return len(self._lent) >= limit

    def regain(self, index: int) -> Known | None:
        """We hold the token of a request of ours, and start it ourselves: it waits no more. What is known of it."""
        lent = self._lent.pop(index, None)
        return None if lent is None else lent[2]

    def _reclaim(self) -> None:
        ledger = self._ledger
        gone = [
            index
            for index, (seq, _, _) in self._lent.items()
            if ledger.is_taken(index, seq) or ledger.is_said(index, seq)
        ]
        for index in gone:
            del self._lent[index]
            ledger.release(index)

    def sweep(self, now_ns: int) -> None:
        """Frees what others started, and gives up what is past its deadline. Call it at every beat."""
        self._reclaim()
        for index in [index for index, lent in self._lent.items() if lent[1] <= now_ns]:
            del self._lent[index]
            self._expired(index)

    def give_up(self) -> None:
        """Gives up everything that nobody has started, as if its deadline had come."""
        self.sweep(1 << 62)
