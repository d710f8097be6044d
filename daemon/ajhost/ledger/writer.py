"""A ledger as its owner writes it. The order of the stores is the promise: see `ledger/layout.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ajhost.ledger.frame_store import Allocator
from ajhost.ledger.layout import (
    CLAIMED,
    DEADLINE,
    E_ANSWERED,
    E_QUEUED,
    E_RECEIVED,
    E_SENT,
    E_STARTED,
    ENTRY_SIZE,
    ENTRY_WORDS,
    FIRST,
    FRAME,
    MAX_ID,
    MAX_TYPE,
    ORIGIN,
    ORIGIN_ENTRY,
    ORIGIN_SEQ,
    RECEIVED_NS,
    REVOKED,
    SIZES,
    STARTED,
    TEXT,
    TRIES,
    Word,
)
from ajhost.ledger.view import Ledger

REFUSAL_DUE_NS = 250_000_000
"""The deadline of a refusal, from its receipt: it leaves at once, unless its worker hangs before it has sent it."""


class LedgerWriter(Ledger):
    """A ledger as its owner writes it. One thread only."""

    __slots__ = ("_free", "_high_water", "_seq", "_stored", "store")

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        self.store = Allocator(self.words[Word.STORE_AT], self.words[Word.STORE_SIZE])
        self._free = list(range(self.entries - 1, -1, -1))
        self._stored: dict[int, int] = {}
        self._seq = self._high_water = 0

    @property
    def available(self) -> int:
        """How many entries are free."""
        return len(self._free)

    @property
    def held(self) -> int:
        """How many entries are in use."""
        return self.entries - len(self._free)

    def _take_entry(self) -> int:
        index = self._free.pop()
        if index == self._high_water:  # what was released is taken first, so this grows by one at a time
            self._high_water = self.words[Word.HIGH_WATER] = index + 1
        return index

    def receive(self, at: int, size: int, now_ns: int) -> int:
        """RECEIVED: a request whose raw frame lies at file offset `at`. The caller saw that one is `available`."""
        index = self._take_entry()
        self._seq = seq = self._seq + 1
        words, word = self.words, FIRST + index * ENTRY_WORDS
        words[word + FRAME] = at << 32 | size
        words[word + RECEIVED_NS] = now_ns
        words[word + DEADLINE] = 0
        words[word] = seq << 8 | E_RECEIVED
        return index

    def receive_copy(self, frame: bytes, now_ns: int) -> int | None:
        """A request that is not in the chunk, copied to the store: RECEIVED; None when there is no room."""
        place = self.store.allocate(len(frame)) if self._free else None
        if place is None:
            return None
        self.view[place : place + len(frame)] = frame
        index = self.receive(place, len(frame), now_ns)
        self._stored[index] = place
        return index

    def keep(self, index: int, frame: bytes) -> bool:
        """Moves a RECEIVED request's frame from the chunk to the store, by one store of its place; False: no room."""
        place = self.store.allocate(len(frame))
        if place is None:
            return False
        self.view[place : place + len(frame)] = frame
        self.words[FIRST + index * ENTRY_WORDS + FRAME] = place << 32 | len(frame)
        self._stored[index] = place
        return True

    def drop_frame(self, index: int) -> None:
        """Gives up the frame in the store of a request that is STARTED, which nobody reads any more."""
        if index in self._stored:
            self.store.release(self._stored.pop(index))

    def set_deadline(self, index: int, deadline_ns: int) -> None:
        """When a request must be answered at the latest, on the monotonic clock."""
        self.words[FIRST + index * ENTRY_WORDS + DEADLINE] = deadline_ns

    def queue(self, index: int, seq: int) -> None:
        """QUEUED: its token is on its way."""
        self.words[FIRST + index * ENTRY_WORDS] = seq << 8 | E_QUEUED

    def start(
        self,
        index: int,
        now_ns: int,
        reply: bytes,
        id_: bytes,
        type_: bytes,
        route: int,
        tries: int,
        origin: tuple[int, int, int] = (0, 0, 0),
    ) -> bool:
        """STARTED, written immediately before the handler runs.

        False when the supervisor took the request away meanwhile (this process had been stopped): do not run it.
        """
        words, word = self.words, FIRST + index * ENTRY_WORDS
        id_, type_ = id_[:MAX_ID], type_[:MAX_TYPE]
        words[word + STARTED] = now_ns
        words[word + ORIGIN] = origin[0]
        if origin[0]:  # 0 is nobody's serial: without an origin its other words mean nothing
            words[word + ORIGIN_ENTRY], words[word + ORIGIN_SEQ] = origin[1:]
        words[word + SIZES] = len(reply) | len(id_) << 16 | len(type_) << 32 | route << 48
        words[word + TRIES] = tries
        text = reply + id_ + type_
        place = word * 8 + TEXT
        self.view[place : place + len(text)] = text
        seq = words[word] >> 8
        words[word] = seq << 8 | E_STARTED
        # after the store: the supervisor, which stopped us, saw STARTED, or we see its word
        return words[word + REVOKED] != seq

    def start_pulled(self, now_ns: int) -> int:
        """An entry for a request that is pulled; it becomes visible with `start`. One must be `available`."""
        index = self._take_entry()
        self._seq = seq = self._seq + 1
        words, word = self.words, FIRST + index * ENTRY_WORDS
        words[word + FRAME] = words[word + DEADLINE] = 0
        words[word + RECEIVED_NS] = now_ns
        words[word] = seq << 8  # FREE with its seq: no request yet
        return index

    def refuse(self, index: int, reply: bytes) -> bool:
        """ANSWERED, of a request that may never have been started: its reply subject is put down first.

        Without that, whoever inherits the entry would answer to what an earlier request left there. It has a deadline
        from now on, so that the supervisor answers when its worker hangs with the reply unsent. False when the
        supervisor has spoken for it or a consumer has started it after all: send nothing. A subject longer than an
        entry's texts is left out; after a death such a request has no answer.
        """
        words, word = self.words, FIRST + index * ENTRY_WORDS
        seq, state = self.state(index)
        if state != E_STARTED:
            if len(reply) > ENTRY_SIZE - TEXT:
                reply = b""
            # the deadline stays: while a token for it is about, others may look at it
            words[word + STARTED] = words[word + ORIGIN] = words[word + TRIES] = 0
            words[word + SIZES] = len(reply)
            place = word * 8 + TEXT
            self.view[place : place + len(reply)] = reply
        if not words[word + DEADLINE]:
            words[word + DEADLINE] = words[word + RECEIVED_NS] + REFUSAL_DUE_NS
        words[word] = seq << 8 | E_ANSWERED
        # after the store: a consumer that looks again sees ANSWERED, or we see its word
        return words[word + REVOKED] != seq and words[word + CLAIMED] != seq

    def answer(self, index: int) -> bool:
        """ANSWERED, of a STARTED request: the reply is about to be written.

        False when the supervisor has spoken for it: send nothing.
        """
        words, word = self.words, FIRST + index * ENTRY_WORDS
        seq = words[word] >> 8
        words[word] = seq << 8 | E_ANSWERED
        return words[word + REVOKED] != seq

    def sent(self, entries: Iterable[int]) -> None:
        """SENT, of ANSWERED requests: the kernel took their replies."""
        words = self.words
        for index in entries:
            word = FIRST + index * ENTRY_WORDS
            words[word] = words[word] >> 8 << 8 | E_SENT

    def recall(self, entries: Iterable[int]) -> None:
        """ANSWERED again: the connection has ended, and nobody knows whether the server read them."""
        words = self.words
        for index in entries:
            word = FIRST + index * ENTRY_WORDS
            words[word] = words[word] >> 8 << 8 | E_ANSWERED

    def release(self, index: int) -> None:
        """FREE: a consumer started it, or the supervisor has it."""
        self.release_all((index,))

    def release_all(self, entries: Sequence[int]) -> None:
        """FREE: the server has their replies."""
        words, stored = self.words, self._stored
        for index in entries:
            words[FIRST + index * ENTRY_WORDS] = 0
            if index in stored:
                self.drop_frame(index)
        self._free.extend(entries)
