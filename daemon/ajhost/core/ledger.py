"""The ledger: one shared file per worker process, the heart of the promise. Layout and meaning of every word.

Sans-IO: it works on a buffer, whoever mapped it. `Ledger` is what anybody may read and the few words that others
write; `OwnLedger` is what the owner does. Every word has one writer and is stored through a native
`memoryview.cast("Q")`: one aligned 8-byte store, which a SIGKILL cannot tear (`struct.pack_into("<Q")` stores byte by
byte). An entry's state word is written last, so an entry exists only when it is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from ajhost.core.store import Store

MAGIC = int.from_bytes(b"ajhostL\n", "big")
LAYOUT = 1
HEADER_SIZE = 4096
ENTRY_SIZE = 512


class State(IntEnum):
    """Where a request stands; the low byte of an entry's state word."""

    FREE = 0
    RECEIVED = 1
    QUEUED = 2
    STARTED = 3
    ANSWERED = 4


class Phase(IntEnum):
    """Where a worker stands, as it says itself."""

    STARTING = 0
    SERVING = 1
    LEAVING = 2


class Word:
    """Indexes of the header's words. The owner writes them unless said otherwise."""

    MAGIC, LAYOUT, SERIAL, SLOT, GENERATION, PID = range(6)
    ENTRIES, CHUNK_AT, CHUNK_SIZE, STORE_AT, STORE_SIZE = range(6, 11)
    PHASE, BEAT, EPOCH, RECV, DONE, BASE, SEALED = range(16, 23)
    STOLEN = 24
    """Written by the supervisor: the epoch whose connection it took over while this worker hung."""
    RECEIVED, COMPLETED, FAILED, TERMINATED, REFUSED, LENT, PULLED, STUCK, BUSY_NS = range(32, 41)
    TOKEN = 64
    """Four words: the token that this process received last (`core/token.py`)."""


COUNTERS = ("received", "completed", "failed", "terminated", "refused", "lent", "pulled", "stuck", "busy_ns")
SUPERVISOR_SLOT = 0xFFFF

# words of an entry, relative to its first
_STATE, _SAID, _TAKEN, _AT, _ACCEPTED, _DEADLINE, _STARTED, _ORIGIN, _LENGTHS, _TRIES = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    10,
    11,
)
_TEXT = 96
_ENTRY_WORDS = ENTRY_SIZE // 8
_START = struct.Struct("=QQQQQHHHHQ")
"""From `_DEADLINE` on: deadline, started, origin (serial, entry, seq), sizes of reply, id and type, route, tries."""
MAX_REPLY = 256
"""Bytes of the longest reply subject that an entry holds; a router's are about 30."""
_MAX_ID, _MAX_TYPE = 64, 96
_FIRST = HEADER_SIZE // 8
# plain integers for the hot path: an enum member's `value` costs more than the store
_RECEIVED, _QUEUED, _STARTED_STATE, _ANSWERED = (
    int(s) for s in (State.RECEIVED, State.QUEUED, State.STARTED, State.ANSWERED)
)


class LedgerError(ValueError):
    """The file is no ledger of this layout."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a ledger file, in bytes (`entries` is a count)."""

    entries: int
    chunk: int
    store: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return HEADER_SIZE + self.entries * ENTRY_SIZE + self.chunk + self.store


def geometry_for(held: int, max_payload: int) -> Geometry:
    """The geometry that holds `held` requests at once from a server with `max_payload`.

    The chunk takes two of the largest frames and a read: a partial frame is then always movable without overlap. The
    store takes what waits: typical requests, or a few of the largest.
    """
    frame = max_payload + 8192
    entries = 512
    while entries < held * 2 + 512:
        entries *= 2
    chunk = _page(2 * frame + (1 << 18))
    return Geometry(entries, chunk, _page(max(4 * frame, held * 4096)))


def _page(size: int) -> int:
    return (size + 4095) & ~4095


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose ledger it is. `serial` is unique over all processes and starts of a runtime directory."""

    serial: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One request as the ledger tells it; times are monotonic nanoseconds, 0 for none."""

    index: int
    seq: int
    state: State
    said: bool
    taken: bool
    at: int
    size: int
    accepted_ns: int
    deadline_ns: int
    started_ns: int
    origin: tuple[int, int, int] | None
    """`(serial, index, seq)` of the entry that the request was pulled from."""
    reply: bytes
    id: str
    type: str
    route: int
    tries: int


def create(buffer: memoryview, geometry: Geometry, identity: Identity) -> None:
    """Writes the header of a new ledger into zeroed memory; the magic comes last."""
    words = buffer.cast("Q")
    words[Word.LAYOUT] = LAYOUT
    words[Word.SERIAL] = identity.serial
    words[Word.SLOT] = identity.slot
    words[Word.GENERATION] = identity.generation
    words[Word.ENTRIES] = geometry.entries
    words[Word.CHUNK_AT] = HEADER_SIZE + geometry.entries * ENTRY_SIZE
    words[Word.CHUNK_SIZE] = geometry.chunk
    words[Word.STORE_AT] = HEADER_SIZE + geometry.entries * ENTRY_SIZE + geometry.chunk
    words[Word.STORE_SIZE] = geometry.store
    words[Word.MAGIC] = MAGIC
    words.release()


class Ledger:
    """A ledger as others see it.

    :raises LedgerError: when the buffer holds no ledger of this layout, or one cut short.
    """

    __slots__ = (
        "_first",
        "chunk_at",
        "chunk_size",
        "entries",
        "generation",
        "serial",
        "slot",
        "view",
        "words",
    )

    def __init__(self, buffer: memoryview) -> None:
        if len(buffer) < HEADER_SIZE:
            raise LedgerError("shorter than a header")
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
        self.serial = words[Word.SERIAL]
        self.slot = words[Word.SLOT]
        self.generation = words[Word.GENERATION]
        self._first = HEADER_SIZE // 8

    def used(self) -> Iterator[Entry]:
        """Every entry that is not free."""
        words = self.words
        for index in range(self.entries):
            if words[_FIRST + index * _ENTRY_WORDS] & 0xFF:
                yield self.entry(index)

    def in_use(self) -> bool:
        """Whether any entry is not free."""
        words = self.words
        return any(words[_FIRST + index * _ENTRY_WORDS] & 0xFF for index in range(self.entries))

    def running(self) -> int:
        """How many requests are STARTED."""
        words = self.words
        return sum(words[_FIRST + i * _ENTRY_WORDS] & 0xFF == State.STARTED for i in range(self.entries))

    def entry(self, index: int) -> Entry:
        """A copy of an entry."""
        words, word = self.words, _FIRST + index * _ENTRY_WORDS
        state = words[word]
        seq = state >> 8
        deadline, started, serial, origin, origin_seq, reply, id_, type_, route, tries = _START.unpack_from(
            self.view, (word + _DEADLINE) * 8
        )
        at = words[word + _AT]
        text = word * 8 + _TEXT
        return Entry(
            index=index,
            seq=seq,
            state=State(state & 0xFF),
            said=words[word + _SAID] == seq,
            taken=words[word + _TAKEN] == seq,
            at=at >> 32,
            size=at & 0xFFFFFFFF,
            accepted_ns=words[word + _ACCEPTED],
            deadline_ns=deadline,
            started_ns=started,
            origin=(serial, origin, origin_seq) if serial else None,
            reply=bytes(self.view[text : text + reply]),
            id=bytes(self.view[text + reply : text + reply + id_]).decode("utf-8", "replace"),
            type=bytes(self.view[text + reply + id_ : text + reply + id_ + type_]).decode("utf-8", "replace"),
            route=route,
            tries=tries,
        )

    def state(self, index: int) -> tuple[int, int]:
        """`(seq, state)` of an entry, in one look."""
        value = self.words[_FIRST + index * _ENTRY_WORDS]
        return value >> 8, value & 0xFF

    def is_said(self, index: int, seq: int) -> bool:
        """Whether the supervisor took this request away or answered it."""
        return self.words[_FIRST + index * _ENTRY_WORDS + _SAID] == seq

    def is_taken(self, index: int, seq: int) -> bool:
        """Whether a puller started this request."""
        return self.words[_FIRST + index * _ENTRY_WORDS + _TAKEN] == seq

    def say(self, index: int, seq: int) -> None:
        """The supervisor's word: this request is mine, its owner leaves it alone."""
        self.words[_FIRST + index * _ENTRY_WORDS + _SAID] = seq

    def take(self, index: int, seq: int) -> None:
        """The puller's word: this request is started, its owner forgets it."""
        self.words[_FIRST + index * _ENTRY_WORDS + _TAKEN] = seq

    def frame(self, index: int) -> bytes:
        """The raw NATS frame of an entry that is RECEIVED or QUEUED."""
        at = self.words[_FIRST + index * _ENTRY_WORDS + _AT]
        return bytes(self.view[at >> 32 : (at >> 32) + (at & 0xFFFFFFFF)])

    def free_entry(self, index: int) -> None:
        """Frees an entry of a process that is dead (the supervisor, once it has dealt with it)."""
        self.words[_FIRST + index * _ENTRY_WORDS] = 0

    def close(self) -> None:
        """Releases the views, so that the mapping can be closed."""
        self.words.release()
        self.view.release()


class OwnLedger(Ledger):
    """A ledger as its owner writes it. One thread only."""

    __slots__ = ("_free", "_seq", "_stored", "store")

    def __init__(self, buffer: memoryview) -> None:
        super().__init__(buffer)
        self.store = Store(self.words[Word.STORE_AT], self.words[Word.STORE_SIZE])
        self._free = list(range(self.entries - 1, -1, -1))
        self._stored: dict[int, int] = {}
        self._seq = 0

    @property
    def available(self) -> int:
        """How many entries are free."""
        return len(self._free)

    @property
    def held(self) -> int:
        """How many entries are in use."""
        return self.entries - len(self._free)

    def receive(self, at: int, size: int, now_ns: int) -> int:
        """RECEIVED: a request whose raw frame lies at file offset `at`. The caller saw that one is `available`."""
        index = self._free.pop()
        self._seq = seq = self._seq + 1
        words, word = self.words, _FIRST + index * _ENTRY_WORDS
        words[word + _AT] = at << 32 | size
        words[word + _ACCEPTED] = now_ns
        words[word + _DEADLINE] = 0
        words[word] = seq << 8 | _RECEIVED
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
        self.words[_FIRST + index * _ENTRY_WORDS + _AT] = place << 32 | len(frame)
        self._stored[index] = place
        return True

    def set_deadline(self, index: int, deadline_ns: int) -> None:
        """When a waiting request must be refused, on the monotonic clock."""
        self.words[_FIRST + index * _ENTRY_WORDS + _DEADLINE] = deadline_ns

    def queue(self, index: int, seq: int) -> None:
        """QUEUED: its token is on its way."""
        self.words[_FIRST + index * _ENTRY_WORDS] = seq << 8 | _QUEUED

    def start(
        self,
        index: int,
        deadline_ns: int,
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
        words, word = self.words, _FIRST + index * _ENTRY_WORDS
        id_, type_ = id_[:_MAX_ID], type_[:_MAX_TYPE]
        _START.pack_into(
            self.view, (word + _DEADLINE) * 8,
            deadline_ns, now_ns, *origin, len(reply), len(id_), len(type_), route, min(tries, 1 << 32),
        )  # fmt: skip
        text = reply + id_ + type_
        place = word * 8 + _TEXT
        self.view[place : place + len(text)] = text
        seq = words[word] >> 8
        words[word] = seq << 8 | _STARTED_STATE
        # after the store: the supervisor, which stopped us, saw STARTED, or we see its word
        return words[word + _SAID] != seq

    def start_pulled(self, now_ns: int) -> int:
        """An entry for a request that was pulled; it becomes visible with `start`. One must be `available`."""
        index = self._free.pop()
        self._seq = seq = self._seq + 1
        words, word = self.words, _FIRST + index * _ENTRY_WORDS
        words[word + _AT] = 0
        words[word + _ACCEPTED] = now_ns
        words[word] = seq << 8  # FREE with its seq: no request yet
        return index

    def answer(self, index: int) -> bool:
        """ANSWERED: the reply is about to be written. False when the supervisor has spoken for it: send nothing."""
        words, word = self.words, _FIRST + index * _ENTRY_WORDS
        seq = words[word] >> 8
        words[word] = seq << 8 | _ANSWERED
        return words[word + _SAID] != seq

    def release(self, index: int) -> None:
        """FREE: the kernel took the reply, a puller started it, or the supervisor has it."""
        self.words[_FIRST + index * _ENTRY_WORDS] = 0
        place = self._stored.pop(index, None)
        if place is not None:
            self.store.release(place)
        self._free.append(index)
