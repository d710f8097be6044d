"""Pulling: a token is received straight into our ledger's header, so that no kill between two lines loses it.

It stays there until the request has begun: who hangs or dies before that has not started it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from ajhost.adapters import sockets
from ajhost.core.ledger import Ledger
from ajhost.core.own_ledger import OwnLedger
from ajhost.core.token import SIZE, Claim, Token, claim, token_places, unpack
from ajhost.roles.shared_queue.lane import Lane
from ajhost.roles.shared_queue.maps import Maps

_LOOK_AGAIN = 0.001
"""Seconds until an undecided token is looked at again: its pusher needs microseconds, its death some milliseconds."""
_TOO_LATE_NS = 5_000_000
"""A request with less left than this is not started: its owner answers at the deadline, and one answer is enough."""


Origin = tuple[int, int, int]
"""`(serial, entry, seq)` of the entry that a request was pulled from; serial 0: none."""
NO_ORIGIN: Origin = (0, 0, 0)


class Claimed:
    """A request whose token we hold, and which has not begun. `own`: it waited in our own ledger."""

    __slots__ = ("_at", "_free", "_owner", "last", "own", "token")

    def __init__(self, token: Token, owner: Ledger, at: int, free: list[int], *, own: bool) -> None:
        self.token, self.own = token, own
        self._owner, self._at, self._free = owner, at, free
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
            mine = not _too_late(token) and claim(token, owner) is Claim.MINE
            mine = mine and start((token.serial, token.entry, token.seq))
            # after the store: the supervisor, which stopped us, saw our entry, or we see its word
            mine = mine and not owner.is_said(token.entry, token.seq)
            if mine:
                owner.take(token.entry, token.seq)
        self._free.append(self._at)
        return mine


class Pulled(Enum):
    """What one attempt gave."""

    STARTED = "a request was started"
    NOTHING = "the lane is empty"
    WAITING = "a token is undecided; nothing else is pulled until it is"


class Puller:
    """Takes requests out of the lanes while `room(lane)` says that one could start.

    `start(frame, claimed)` starts a pulled request from its raw frame, `resume(claimed)` one of our own, which has its
    entry. Each has to call `claimed.begin` when the request begins, and at once if it is the `last`.
    """

    def __init__(
        self,
        ledger: OwnLedger,
        directory: Path,
        lanes: Sequence[Lane],
        loop: asyncio.AbstractEventLoop,
        room: Callable[[str], bool],
        start: Callable[[bytes, Claimed], None],
        resume: Callable[[Claimed], None],
    ) -> None:
        self._places = token_places(ledger)
        self._free = list(range(len(self._places) - 1, -1, -1))
        """Places whose tokens are settled: started, stale, or handed back."""
        self._ledger = ledger
        self._maps = Maps(directory, ledger)
        self._lanes = list(lanes)
        self._loop = loop
        self._room = room
        self._start = start
        self._resume = resume
        self._listening: set[str] = set()
        self._undecided: tuple[Token, Lane, int] | None = None
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
        self._maps.prune()

    def refresh(self) -> None:
        """Pulls what has room, and listens to the lanes that have room left. Call it when a slot was freed."""
        for lane in self._lanes:
            wanted = self._active and self._undecided is None and self._room(lane.name)
            if wanted and lane.name not in self._listening:
                wanted = self._empty(lane)
            self._listen(lane, wanted)
        if len(self._lanes) > 1:
            self._lanes.append(self._lanes.pop(0))  # no lane is always first

    def _listen(self, lane: Lane, wanted: bool) -> None:
        if wanted and lane.name not in self._listening:
            self._listening.add(lane.name)
            self._loop.add_reader(lane.receive, self._readable, lane)
        elif not wanted and lane.name in self._listening:
            self._listening.remove(lane.name)
            self._loop.remove_reader(lane.receive)

    def _readable(self, lane: Lane) -> None:
        if self._room(lane.name):
            self._pull(lane)
        self.refresh()

    def _empty(self, lane: Lane) -> bool:
        """Pulls while there is room; whether the lane was found empty with room left."""
        while self._room(lane.name):
            if (pulled := self._pull(lane)) is not Pulled.STARTED:
                return pulled is Pulled.NOTHING
        return False

    def _pull(self, lane: Lane) -> Pulled:
        while self._undecided is None:
            at = self._free[-1]
            try:
                received = sockets.receive(lane.receive, self._places[at])
            except (BlockingIOError, InterruptedError):
                return Pulled.NOTHING
            if received != SIZE:
                return Pulled.NOTHING
            self._free.pop()
            if self._settle(unpack(self._places[at]), lane, at):
                return Pulled.STARTED
        return Pulled.WAITING

    def _settle(self, token: Token, lane: Lane, at: int) -> bool:
        """Starts what a token names, which lies at place `at`; False when it is stale or not decided yet."""
        owner = self._maps.get(token.serial)
        verdict = Claim.STALE if owner is None else claim(token, owner)
        if owner is None or verdict is Claim.STALE or _too_late(token):
            self._free.append(at)
            return False
        if verdict is Claim.UNDECIDED:
            self._hold(token, lane, at)
            return False
        own = owner is self._ledger
        claimed = Claimed(token, owner, at, self._free, own=own)
        if own:
            self._resume(claimed)
            return True
        frame = owner.frame(token.entry)
        # while we were not running its owner may have given it up, and the entry may be another request's by now
        if claim(token, owner) is not Claim.MINE:
            self._free.append(at)
            return False
        self._start(frame, claimed)
        return True

    def _hold(self, token: Token, lane: Lane, at: int) -> None:
        self._undecided = (token, lane, at)
        self._loop.call_later(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        if self._undecided is None:
            return
        (token, lane, at), self._undecided = self._undecided, None
        if self._room(lane.name):
            self._settle(token, lane, at)
        elif not self._hand_back(token, lane, at):
            self._hold(token, lane, at)
        self.refresh()

    def _hand_back(self, token: Token, lane: Lane, at: int) -> bool:
        """Our own requests took the room meanwhile: whoever has some shall have the token. False: the lane is full."""
        try:
            sockets.send(lane.send, token.pack())
        except (BlockingIOError, InterruptedError):
            return False
        # after the send: a kill in between gives two tokens, of which the later is found taken, rather than none
        self._places[at][:] = bytes(SIZE)
        self._free.append(at)
        return True


def _too_late(token: Token) -> bool:
    return token.deadline_ns < time.monotonic_ns() + _TOO_LATE_NS
