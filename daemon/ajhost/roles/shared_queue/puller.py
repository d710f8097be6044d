"""Pulling: a token is received straight into our ledger's header, so that no kill between two lines loses it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path

from ajhost.adapters import sockets
from ajhost.core.layout import Word
from ajhost.core.own_ledger import OwnLedger
from ajhost.core.token import SIZE, Claim, Token, claim, unpack
from ajhost.roles.shared_queue.lane import Lane
from ajhost.roles.shared_queue.maps import Maps

_LOOK_AGAIN = 0.001
"""Seconds until an undecided token is looked at again: its pusher needs microseconds, its death some milliseconds."""
_TOO_LATE_NS = 5_000_000
"""A request with less left than this is not started: its owner answers at the deadline, and one answer is enough."""


class Pulled(Enum):
    """What one attempt gave."""

    STARTED = "a request was started"
    NOTHING = "the lane is empty"
    WAITING = "a token is undecided; nothing else is pulled until it is"


class Puller:
    """Takes requests out of the lanes while `room(lane)` says that one could start.

    `start(frame, token, taken)` starts a pulled request from its raw frame; it writes our own entry before it calls
    `taken()` of this puller. `resume(token)` starts one of our own, which has its entry.
    """

    def __init__(
        self,
        ledger: OwnLedger,
        directory: Path,
        lanes: Sequence[Lane],
        loop: asyncio.AbstractEventLoop,
        room: Callable[[str], bool],
        start: Callable[[bytes, Token, Callable[[], None]], None],
        resume: Callable[[Token], None],
    ) -> None:
        self._header = ledger.view[Word.TOKEN * 8 : Word.TOKEN * 8 + SIZE]
        self._ledger = ledger
        self._maps = Maps(directory, ledger)
        self._lanes = list(lanes)
        self._loop = loop
        self._room = room
        self._start = start
        self._resume = resume
        self._listening: set[str] = set()
        self._undecided: tuple[Token, Lane] | None = None
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
            try:
                received = sockets.receive(lane.receive, self._header)
            except (BlockingIOError, InterruptedError):
                return Pulled.NOTHING
            if received != SIZE:
                return Pulled.NOTHING
            if self._settle(unpack(self._header), lane):
                return Pulled.STARTED
        return Pulled.WAITING

    def _settle(self, token: Token, lane: Lane) -> bool:
        """Starts what a token names; False when it is stale or not decided yet."""
        owner = self._maps.get(token.serial)
        verdict = Claim.STALE if owner is None else claim(token, owner)
        if owner is None or verdict is Claim.STALE or token.deadline_ns < time.monotonic_ns() + _TOO_LATE_NS:
            return False
        if verdict is Claim.UNDECIDED:
            self._hold(token, lane)
            return False
        if owner is self._ledger:
            self._resume(token)
            return True
        frame = owner.frame(token.entry)
        # while we were not running its owner may have given it up, and the entry may be another request's by now
        if claim(token, owner) is not Claim.MINE:
            return False
        self._start(frame, token, lambda: owner.take(token.entry, token.seq))
        return True

    def _hold(self, token: Token, lane: Lane) -> None:
        self._undecided = (token, lane)
        self._loop.call_later(_LOOK_AGAIN, self._look_again)

    def _look_again(self) -> None:
        if self._undecided is None:
            return
        (token, lane), self._undecided = self._undecided, None
        if self._room(lane.name):
            self._settle(token, lane)
        elif not self._hand_back(token, lane):
            self._hold(token, lane)
        self.refresh()

    def _hand_back(self, token: Token, lane: Lane) -> bool:
        """Our own requests took the room meanwhile: whoever has some shall have the token. False: the lane is full."""
        try:
            sockets.send(lane.send, token.pack())
        except (BlockingIOError, InterruptedError):
            return False
        # after the send: a kill in between gives two tokens, of which the later is found taken, rather than none
        self._header[:] = bytes(SIZE)
        return True
