"""A ledger as its owner writes it. Each method that changes a state is a row of `ledger/states.py`. Decides which entry
is used next, and by when a refusal must have left (0.25 s), or the supervisor answers.

The state word is stored last, so a SIGKILL in between leaves the previous state. Where another process may write as
well, the method first stores its state and then reads the other's word: at least one of the two sees the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from ajhost.ledger.frame_store import FrameStore
from ajhost.ledger.layout import (
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
    HEADER_SIZE,
    MAX_ID,
    MAX_TYPE,
    ORIGIN,
    ORIGIN_ENTRY,
    ORIGIN_SEQ,
    RECEIVED_NS,
    REVOKED,
    SIZES,
    STARTED,
    STATE,
    TEXT,
    TRIES,
    Word,
)
from ajhost.ledger.view import Ledger
from ajhost.protocol.frames import Message

_TEXTS = HEADER_SIZE + TEXT
"""Where the texts of the first entry begin, in bytes."""
REFUSAL_DUE_NS = 250_000_000
"""A refusal is due so long after its request was received. It leaves at once, unless its worker hangs before that."""
_RESTING = 256
"""How many entries whose requests were refused while they waited are kept from further use: see `_rest`."""


class LedgerWriter(Ledger):
    """The owner's side of a ledger, for one thread only."""

    __slots__ = (
        "_free", "_high_water", "_prepared", "_resting", "_seq", "_seqs", "_stored", "_words_of", "store",
    )  # fmt: skip

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        self.store = FrameStore(self.words[Word.STORE_AT], self.words[Word.STORE_SIZE])
        prepared = self.store_prepared or self.words[Word.STORE_SIZE]
        self._prepared = self.words[Word.STORE_AT] + prepared
        self._free: list[int] = []
        """Free entries that were in use. The others are not listed: 4,096 numbers take 0.2 MB of each worker."""
        self._resting: deque[int] = deque()
        """Free entries that are used again last; the one that has rested longest is first."""
        self._words_of: list[memoryview] = []
        """The words of each entry that was ever in use."""
        self._stored: dict[int, int] = {}
        self._seq = self._high_water = 0
        self._seqs: list[int] = []
        """`seq << 8` of each entry that was ever in use, so that this process need not read it from the file."""

    @property
    def available(self) -> int:
        """Returns how many entries are free."""
        return self.entries - self._high_water + len(self._free) + len(self._resting)

    @property
    def held(self) -> int:
        """Returns how many entries are in use."""
        return self._high_water - len(self._free) - len(self._resting)

    def _take_entry(self) -> int:
        index = self._free.pop() if self._free else self._touch()
        self._seqs[index] = self._seq = self._seq + (1 << 8)
        return index

    def _touch(self) -> int:
        """Returns an entry that has rested long enough, or the next one that was never in use."""
        index, resting = self._high_water, self._resting
        if len(resting) > _RESTING or (resting and index == self.entries):
            return resting.popleft()
        if index == self.entries:
            raise IndexError("no entry is free")
        at = FIRST + index * ENTRY_WORDS
        self._words_of.append(self.words[at : at + ENTRY_WORDS])
        self._seqs.append(0)
        self._high_water = self.words[Word.HIGH_WATER] = index + 1
        return index

    def receive(self, at: int, size: int, now_ns: int) -> int:
        """RECEIVED: a request whose raw frame lies at file offset `at`. The caller has checked `available`."""
        [(index, _)] = self.receive_all(at, [(0, 0, 0, size, b"", b"?")], now_ns)
        return index

    def receive_all(self, at: int, messages: Iterable[Message], now_ns: int) -> list[tuple[int, Message]]:
        """RECEIVED: the messages that have a reply subject. Their positions are relative to file offset `at`. The
        caller has checked `available`.
        """
        free, seqs, words_of = self._free, self._seqs, self._words_of
        requests = []
        for message in messages:
            begin, _, _, end, _, reply = message
            if not reply:
                continue
            # as `_take_entry` does, without a further call for each task
            index = free.pop() if free else self._touch()
            seqs[index] = self._seq = seq = self._seq + (1 << 8)
            words = words_of[index]
            words[FRAME] = at + begin << 32 | end - begin
            words[RECEIVED_NS] = now_ns
            words[DEADLINE] = 0
            words[STATE] = seq | E_RECEIVED
            requests.append((index, message))
        return requests

    def receive_copy(self, frame: bytes, now_ns: int) -> int | None:
        """RECEIVED: a request whose frame is copied to the store; None when there is no room."""
        place = self._store(frame) if self.available else None
        if place is None:
            return None
        index = self.receive(place, len(frame), now_ns)
        self._stored[index] = place
        return index

    def keep(self, index: int, frame: bytes) -> bool:
        """Copies a RECEIVED request's frame from the receive buffer to the frame store; False: no room."""
        place = self._store(frame)
        if place is None:
            return False
        self._words_of[index][FRAME] = place << 32 | len(frame)
        self._stored[index] = place
        return True

    def _store(self, frame: bytes) -> int | None:
        size = len(frame)
        place = self.store.allocate(size)
        if place is None:
            return None
        if place + size > self._prepared and not self.set_aside(place, size):
            self.store.release(place)
            return None
        self.view[place : place + size] = frame
        return place

    def drop_frame(self, index: int) -> None:
        """Frees the frame of a STARTED request in the store, since no process reads it any more."""
        if index in self._stored:
            place = self._stored.pop(index)
            size = self.store.release(place)
            if place + size > self._prepared:
                begin = max(place, self._prepared)
                self.give_back(begin, place + size - begin)

    def set_deadline(self, index: int, deadline_ns: int) -> None:
        """Stores by when a request must be answered, on the monotonic clock."""
        self._words_of[index][DEADLINE] = deadline_ns

    def set_route(self, index: int, route: int) -> None:
        """Stores the number of a waiting request's route; `start` stores that of a running one."""
        self._words_of[index][SIZES] = route << 48

    def queue(self, index: int, seq: int) -> None:
        """QUEUED: the kernel has taken the token."""
        self._words_of[index][STATE] = seq << 8 | E_QUEUED

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
        """STARTED: the handler is called next.

        Returns False when the supervisor revoked the request while this process was stopped: do not call the handler.
        """
        words, seq = self._words_of[index], self._seqs[index]
        id_size, type_size = len(id_), len(type_)
        if id_size > MAX_ID or type_size > MAX_TYPE:
            id_, type_ = id_[:MAX_ID], type_[:MAX_TYPE]
            id_size, type_size = len(id_), len(type_)
        words[STARTED] = now_ns
        words[ORIGIN] = serial = origin[0]
        if serial:  # no process has serial 0: the words of an origin then mean nothing
            words[ORIGIN_ENTRY], words[ORIGIN_SEQ] = origin[1:]
        words[SIZES] = len(reply) | id_size << 16 | type_size << 32 | route << 48
        words[TRIES] = tries
        text, place = reply + id_ + type_, _TEXTS + index * ENTRY_SIZE
        self.view[place : place + len(text)] = text
        words[STATE] = seq | E_STARTED
        # after the store: either the supervisor, which stopped this process, saw STARTED, or this process sees REVOKED
        return words[REVOKED] != seq >> 8

    def start_pulled(self, now_ns: int) -> int:
        """RESERVED: an entry for a pulled request, which others see from `start` on. One must be `available`."""
        index = self._take_entry()
        words = self._words_of[index]
        words[FRAME] = words[DEADLINE] = 0
        words[RECEIVED_NS] = now_ns
        words[STATE] = self._seq
        return index

    def refuse(self, index: int, reply: bytes) -> bool:
        """ANSWERED, of a request that may not have started.

        Stores its reply subject first: if this process died, the supervisor would otherwise answer to the subject of an
        earlier request. Gives it a deadline, so that the supervisor answers if this process hangs with the reply
        unsent. A subject that is longer than an entry's texts is left out, and such a request has no answer if this
        process dies. A waiting request must be taken back before (`take_back`).

        Returns False when the supervisor has revoked the request: send nothing.
        """
        words, seq = self._words_of[index], self._seqs[index] >> 8
        if words[STATE] & 0xFF != E_STARTED:
            if len(reply) > ENTRY_SIZE - TEXT:
                reply = b""
            # the deadline stays: a consumer that holds its token may still read it
            words[STARTED] = words[ORIGIN] = words[TRIES] = 0
            words[SIZES] = len(reply)
            place = _TEXTS + index * ENTRY_SIZE
            self.view[place : place + len(reply)] = reply
        if not words[DEADLINE]:
            words[DEADLINE] = words[RECEIVED_NS] + REFUSAL_DUE_NS
        words[STATE] = seq << 8 | E_ANSWERED
        # after the store: the supervisor may have stopped this process and moved the request while it was RECEIVED
        return words[REVOKED] != seq

    def answer(self, index: int) -> bool:
        """ANSWERED, of a STARTED request: the reply is written next.

        Returns False when the supervisor has revoked the request: send nothing.
        """
        words, seq = self._words_of[index], self._seqs[index]
        words[STATE] = seq | E_ANSWERED
        return words[REVOKED] != seq >> 8

    def sent(self, entries: Iterable[int]) -> None:
        """SENT, of ANSWERED requests: the kernel has taken their replies."""
        words_of, seqs = self._words_of, self._seqs
        for index in entries:
            words_of[index][STATE] = seqs[index] | E_SENT

    def recall(self, entries: Iterable[int]) -> None:
        """ANSWERED again: the connection has ended, and the server may not have read the replies."""
        words_of, seqs = self._words_of, self._seqs
        for index in entries:
            words_of[index][STATE] = seqs[index] | E_ANSWERED

    def release(self, index: int) -> None:
        """FREE: a consumer has started the request, or the supervisor has it."""
        self.release_all((index,))

    def release_all(self, entries: Sequence[int]) -> None:
        """FREE: the server has confirmed the replies."""
        words_of = self._words_of
        if self._stored and not self._stored.keys().isdisjoint(entries):
            entries = self._rest(entries)
        for index in entries:
            words_of[index][STATE] = 0
        self._free.extend(entries)

    def _rest(self, entries: Iterable[int]) -> list[int]:
        """Releases the entries whose requests waited and were answered or revoked. Returns the others.

        A consumer may be about to claim such a request, and must still see by the entry's sequence number that it is
        too late. So the entry keeps the number, and is used for another request as late as possible.
        """
        others = []
        for index in entries:
            waited = index in self._stored
            self.drop_frame(index)
            words = self._words_of[index]
            seq, state = self.state(index)
            if waited and (state >= E_ANSWERED or words[REVOKED] == seq):
                words[STATE] = seq << 8
                self._resting.append(index)
            else:
                others.append(index)
        return others

    def close(self) -> None:
        for words in self._words_of:
            words.release()
        super().close()
