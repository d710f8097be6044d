"""A ledger as other processes see it: all that they read, and the few words that they write in place of the owner, such
as claims and revocations. Refuses a file of another layout, and restores a header that a stray write has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ajhost.ledger.connection_status import ConnectionStatus, read_connection
from ajhost.ledger.layout import (
    CLAIMED,
    DEADLINE,
    E_QUEUED,
    E_RECEIVED,
    E_STARTED,
    ENTRY_SIZE,
    ENTRY_WORDS,
    FIRST,
    FRAME,
    HEADER_SIZE,
    LAYOUT,
    MADE,
    MAGIC,
    ORIGIN,
    ORIGIN_ENTRY,
    ORIGIN_SEQ,
    RECEIVED_NS,
    REVOKED,
    SIZES,
    STARTED,
    TEXT,
    TRIES,
    LedgerError,
    State,
    Word,
)
from ajhost.ledger.states import AFTER_CLAIM, Claim

_ROOM = ENTRY_SIZE - TEXT
_STATES = {int(state): state for state in State if state <= State.SENT}
_STATES_OF_CLAIMED = _STATES | {int(State.FREE): State.RESERVED}
_FENCE = threading.Lock()
"""Makes a store in its block visible to every process before this process reads what follows.

Without it an x86 processor may read first, with the store still in its buffer (Intel SDM 3A, 8.2.3.4). Of two processes
that each store and then read, neither would see the other's store. A lock is taken and released by locked instructions,
which empty the buffer (8.2.2). When a process is stopped or ends, the kernel's switch to another task empties it.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A copy of an entry. Times are monotonic nanoseconds; 0: none."""

    index: int
    seq: int
    state: State
    revoked: bool
    claimed: bool
    frame_at: int
    """Where the raw frame lies in the file, in bytes."""
    size: int
    """Bytes of the raw frame."""
    received_ns: int
    deadline_ns: int
    started_ns: int
    origin: tuple[int, int, int] | None
    """`(serial, index, seq)` of the entry from which the request was pulled."""
    reply: bytes
    id: str
    type: str
    route: int
    tries: int

    @property
    def asked_at(self) -> float:
        """Returns when the request came to this host (monotonic seconds); 0 if only its origin's ledger knows it."""
        return self.received_ns / 1e9 if self.frame_at else 0.0

    @property
    def refused(self) -> bool:
        """Whether the request was answered without a start."""
        return self.state in (State.ANSWERED, State.SENT) and not self.started_ns


class Ledger:
    """:raises LedgerError: when the buffer holds no ledger of this layout, or one cut short."""

    __slots__ = (
        "_made", "chunk_at", "chunk_prepared", "chunk_size", "entries", "generation", "serial", "slot",
        "store_prepared", "view", "words",
    )  # fmt: skip

    def __init__(self, buffer: memoryview) -> None:
        if len(buffer) < HEADER_SIZE or len(buffer) % 8:
            raise LedgerError("shorter than a header, or not of whole words")
        self.view = buffer
        self.words = words = buffer.cast("Q")
        if words[Word.MAGIC] != MAGIC:
            raise LedgerError("no ledger")
        if words[Word.LAYOUT] != LAYOUT:
            raise LedgerError(f"layout {words[Word.LAYOUT]}, this is layout {LAYOUT}")
        self.entries = words[Word.ENTRIES]
        self.chunk_at = words[Word.CHUNK_AT]
        self.chunk_size = words[Word.CHUNK_SIZE]
        end = words[Word.STORE_AT] + words[Word.STORE_SIZE]
        ordered = HEADER_SIZE + self.entries * ENTRY_SIZE == self.chunk_at
        if not ordered or self.chunk_at + self.chunk_size != words[Word.STORE_AT] or end != len(buffer):
            raise LedgerError("sizes that do not fit the file")
        # no reason to refuse a ledger: after a stray write too much memory is set aside, or too little, at worst
        self.chunk_prepared = min(words[Word.CHUNK_PREPARED], self.chunk_size)
        self.store_prepared = min(words[Word.STORE_PREPARED], words[Word.STORE_SIZE])
        self.serial = words[Word.SERIAL]
        self.slot = words[Word.SLOT]
        self.generation = words[Word.GENERATION]
        self._made = [(word, words[word]) for word in MADE]

    def restore_header(self) -> bool:
        """Stores the maker's words anew, as they were at the mapping. Returns whether a stray write had changed any.

        A process that maps the file after such a write would find no ledger: no worker could map its supervisor's.
        """
        words = self.words
        changed = [(word, value) for word, value in self._made if words[word] != value]
        for word, value in changed:
            words[word] = value
        return bool(changed)

    def restore_size(self) -> bool:
        """Restores the file's size at the mapping, and its header. Returns whether the file had been truncated.

        A read or write beyond the end of a file ends the process (SIGBUS). The bytes that were cut off are zero then.
        """
        return False

    def touched(self) -> range:
        """Returns the indexes of the entries that were ever in use."""
        return range(min(self.words[Word.HIGH_WATER], self.entries))

    def recount_touched(self) -> None:
        """Corrects a dead owner's `HIGH_WATER`, which a stray write may have lowered: recovery would miss the entries
        beyond it.
        """
        words = self.words
        used = [i for i in range(self.entries) if words[FIRST + i * ENTRY_WORDS] & 0xFF]
        if used and used[-1] >= words[Word.HIGH_WATER]:
            words[Word.HIGH_WATER] = used[-1] + 1

    def used(self) -> Iterator[Entry]:
        """Yields every entry that is not free."""
        words = self.words
        for index in self.touched():
            if words[FIRST + index * ENTRY_WORDS] & 0xFF:
                yield self.entry(index)

    def unanswered(self, before_ns: int) -> Iterator[tuple[int, int]]:
        """Yields `(index, seq)` of entries that were received before `before_ns`, have no answer, and are neither
        revoked nor claimed.
        """
        words = self.words
        for index in self.touched():
            word = FIRST + index * ENTRY_WORDS
            state = words[word]
            if 0 < state & 0xFF <= E_STARTED and words[word + RECEIVED_NS] < before_ns:
                seq = state >> 8
                if words[word + REVOKED] != seq and words[word + CLAIMED] != seq:
                    yield index, seq

    def in_use(self) -> bool:
        words = self.words
        return any(words[FIRST + index * ENTRY_WORDS] & 0xFF for index in self.touched())

    def settled_entries(self) -> list[int]:
        """Returns the entries in use that are revoked or claimed. Copies none: the supervisor asks at every tick."""
        words, found = self.words, []
        for index in self.touched():
            word = FIRST + index * ENTRY_WORDS
            state = words[word]
            if state & 0xFF and (words[word + REVOKED] == state >> 8 or words[word + CLAIMED] == state >> 8):
                found.append(index)
        return found

    def running(self) -> int:
        """Returns how many requests are STARTED."""
        words = self.words
        return sum(words[FIRST + index * ENTRY_WORDS] & 0xFF == E_STARTED for index in self.touched())

    def entry(self, index: int) -> Entry:
        words, word = self.words, FIRST + index * ENTRY_WORDS
        state = words[word]
        seq = state >> 8
        sizes, serial = words[word + SIZES], words[word + ORIGIN]
        # a stray write may have made the texts longer than there is room for
        reply, route = min(sizes & 0xFFFF, _ROOM), sizes >> 48
        id_ = min(sizes >> 16 & 0xFFFF, _ROOM - reply)
        type_ = min(sizes >> 32 & 0xFFFF, _ROOM - reply - id_)
        at = words[word + FRAME]
        text = word * 8 + TEXT
        return Entry(
            index=index,
            seq=seq,
            state=_STATES.get(state & 0xFF, State.DAMAGED),
            revoked=words[word + REVOKED] == seq,
            claimed=words[word + CLAIMED] == seq,
            frame_at=at >> 32,
            size=at & 0xFFFFFFFF,
            received_ns=words[word + RECEIVED_NS],
            deadline_ns=words[word + DEADLINE],
            started_ns=words[word + STARTED],
            origin=(serial, words[word + ORIGIN_ENTRY], words[word + ORIGIN_SEQ]) if serial else None,
            reply=bytes(self.view[text : text + reply]),
            id=bytes(self.view[text + reply : text + reply + id_]).decode("utf-8", "replace"),
            type=bytes(self.view[text + reply + id_ : text + reply + id_ + type_]).decode("utf-8", "replace"),
            route=route,
            tries=words[word + TRIES],
        )

    def last_start_ns(self) -> int:
        """Returns when a handler was last called (monotonic ns), as far as the entries still have it; 0: never."""
        words = self.words
        return max((words[FIRST + index * ENTRY_WORDS + STARTED] for index in self.touched()), default=0)

    def reply(self, index: int) -> bytes:
        word = FIRST + index * ENTRY_WORDS
        text = word * 8 + TEXT
        return bytes(self.view[text : text + min(self.words[word + SIZES] & 0xFFFF, _ROOM)])

    def received_ns(self, index: int) -> int:
        return self.words[FIRST + index * ENTRY_WORDS + RECEIVED_NS]

    def asked_at(self, index: int) -> float:
        """As `Entry.asked_at`."""
        word = FIRST + index * ENTRY_WORDS
        return self.words[word + RECEIVED_NS] / 1e9 if self.words[word + FRAME] else 0.0

    def state(self, index: int) -> tuple[int, int]:
        """Returns `(seq, state)` of an entry, from one load."""
        value = self.words[FIRST + index * ENTRY_WORDS]
        return value >> 8, value & 0xFF

    def is_revoked(self, index: int, seq: int) -> bool:
        """Whether the supervisor answers or moves this request."""
        return self.words[FIRST + index * ENTRY_WORDS + REVOKED] == seq

    def is_claimed(self, index: int, seq: int) -> bool:
        """Whether a consumer has started this request."""
        return self.words[FIRST + index * ENTRY_WORDS + CLAIMED] == seq

    def revoke(self, index: int, seq: int) -> None:
        """Revokes a request: the supervisor answers or moves it, and its owner must neither start nor answer it."""
        with _FENCE:
            self.words[FIRST + index * ENTRY_WORDS + REVOKED] = seq

    def claim(self, index: int, seq: int) -> bool:
        """Claims a request that the consumer has started in its own ledger.

        Returns whether it is still QUEUED, so that the consumer runs it. If not, `claim_worth` has the result.
        """
        words, word = self.words, FIRST + index * ENTRY_WORDS
        with _FENCE:
            words[word + CLAIMED] = seq
        return words[word] == seq << 8 | E_QUEUED and words[word + REVOKED] != seq

    def claim_worth(self, index: int, seq: int) -> Claim:
        """Returns the result of a stored claim, or of the revocation of a request that its owner may refuse."""
        value = self.words[FIRST + index * ENTRY_WORDS]
        if value >> 8 != seq:
            return AFTER_CLAIM[State.FREE][0]
        return AFTER_CLAIM[_STATES_OF_CLAIMED.get(value & 0xFF, State.DAMAGED)][0]

    def take_back(self, index: int, seq: int) -> bool:
        """RECEIVED again: the request waits, and its owner is about to refuse it.

        Returns False when a consumer has claimed it or the supervisor has revoked it: release the entry. A consumer
        that claims it from now on finds RECEIVED, and waits until the entry is ANSWERED or FREE.
        """
        word = FIRST + index * ENTRY_WORDS
        with _FENCE:
            self.words[word] = seq << 8 | E_RECEIVED
        return self.words[word + CLAIMED] != seq and self.words[word + REVOKED] != seq

    def fence(self) -> None:
        """Fences the connection, which the supervisor takes over: the owner must not read on, even if that one dies."""
        self.words[Word.FENCED_EPOCH] = self.words[Word.EPOCH]

    def unfence(self) -> None:
        """Takes the fence back: the owner keeps its connection."""
        self.words[Word.FENCED_EPOCH] = self.words[Word.DRAINED_EPOCH]

    def mark_taken_over(self) -> None:
        """Marks the takeover of the fenced connection as finished. The owner may have another connection by now."""
        self.words[Word.DRAINED_EPOCH] = self.words[Word.FENCED_EPOCH]

    def is_taken_over(self) -> bool:
        """Whether the takeover of the present connection is finished."""
        return self.words[Word.DRAINED_EPOCH] == self.words[Word.EPOCH]

    def connection(self) -> ConnectionStatus:
        return read_connection(self.words, self.view)

    def frame(self, index: int) -> bytes:
        """Returns the raw NATS frame of an entry that is RECEIVED or QUEUED."""
        at = self.words[FIRST + index * ENTRY_WORDS + FRAME]
        return bytes(self.view[at >> 32 : (at >> 32) + (at & 0xFFFFFFFF)])

    def free_entry(self, index: int) -> None:
        """Frees a settled entry of a dead process."""
        self.words[FIRST + index * ENTRY_WORDS] = 0

    def set_aside(self, offset: int, size: int) -> bool:
        """Has memory set aside for bytes of the file. Returns whether there was room. To repeat it is harmless.

        A write to bytes that are not set aside ends the process (SIGBUS) when the file system is full.
        """
        return True

    def give_back(self, offset: int, size: int) -> None:
        """Gives back whole pages that were set aside and that no process reads any more."""

    def close(self) -> None:
        """Releases the views, so that the mapping can be closed."""
        self.words.release()
        self.view.release()
