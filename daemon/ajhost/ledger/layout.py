"""The ledger's layout: every word of the shared file, who writes it, and what it means.

Sans-IO: all of it works on a buffer, whoever mapped it. Every word has one writer, or says who else, and is stored
through a native `memoryview.cast("Q")`: one aligned 8-byte store, which a SIGKILL cannot tear (`struct.pack_into("<Q")`
stores byte by byte). An entry's state word is written last, so an entry exists only when it is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

MAGIC = int.from_bytes(b"ajhostL\n", "big")
LAYOUT = 3
HEADER_SIZE = 4096
ENTRY_SIZE = 512


class State(IntEnum):
    """Where a request stands; the low byte of an entry's state word."""

    FREE = 0
    RECEIVED = 1
    QUEUED = 2
    STARTED = 3
    ANSWERED = 4
    SENT = 5
    DAMAGED = 0xFF
    """Nobody stores it: what readers make of a number that is none of these, a stray write of native code."""


class Phase(IntEnum):
    """Where a worker stands, as it says itself."""

    STARTING = 0
    SERVING = 1
    LEAVING = 2


class Word:
    """Indexes of the header's words. The owner writes them unless said otherwise."""

    MAGIC, LAYOUT, SERIAL, SLOT, GENERATION, PID = range(6)
    ENTRIES, CHUNK_AT, CHUNK_SIZE, STORE_AT, STORE_SIZE = range(6, 11)
    PHASE, HEARTBEAT, EPOCH, RECEIVED_POS, PARSED_POS, BASE, TLS = range(16, 23)
    FENCED_EPOCH = 24
    """Written by the supervisor: the epoch whose connection it took over while this worker hung. It comes before the
    first byte is read, so that a worker that goes on never reads on in the middle."""
    DRAINED_EPOCH = 26
    """Written by the supervisor: the epoch whose stream has been moved to its end. Until it is `FENCED_EPOCH`, whoever
    comes after a supervisor that died in between goes on with it."""
    SUBSCRIBED = 25
    """The epoch in which the server last had all our subscriptions."""
    HIGH_WATER = 27
    """How many entries were ever in use, the first ones; beyond there may be thousands, which nobody looks at."""
    SERVER, BACK_BY = 28, 29
    """In the supervisor's ledger, written by any process of the host (`core/restart_window.py`): which server it last
    knew, and the moment (ns) by which requesters must be back."""
    SOCKET = 30
    """The descriptor of the present connection in its owner; 0: none. Whoever has read it, duplicated it, and finds it
    and `EPOCH` unchanged, has a duplicate of just that."""
    RECEIVED, COMPLETED, FAILED, TERMINATED, REFUSED, LENT, PULLED, STUCK, BUSY_NS = range(32, 41)
    CLOCK_AHEAD = 56
    """In the supervisor's ledger, written by any process of the host (`core/clock_offset.py`): nanoseconds by which
    this clock is ahead of the routers'."""
    UNSIGNED, IGNORED = 57, 58
    """Counts of a worker: requests whose signature was refused, and whose reply subject was."""
    CONNECTION, CONNECTION_SINCE, FAILED_ATTEMPTS, RECONNECTS, CONNECTION_REASON, REFUSED_REPLIES = range(
        42, 48
    )
    """Where the NATS connection stands (`ledger/connection_status.py`): a `ConnectionState`, since when (ns), attempts
    that failed since the last success, connections after the first, a `Reason`, replies refused for lack of a
    permission. Two texts belong to them, at `SERVER_TEXT_AT` and `REASON_TEXT_AT`."""
    LOGIN_GATE = 384
    """In the supervisor's ledger, written by any process of the host: five words of `core/login_gate.py`."""
    TOKENS = 64
    """Places for tokens, four words each (`ledger/queue_token.py`): those that this process has received. What they
    name has not begun here unless an entry says so."""


TOKEN_PLACES = 64
COUNTERS = {
    "received": Word.RECEIVED,
    "completed": Word.COMPLETED,
    "failed": Word.FAILED,
    "terminated": Word.TERMINATED,
    "refused": Word.REFUSED,
    "lent": Word.LENT,
    "pulled": Word.PULLED,
    "stuck": Word.STUCK,
    "busy_ns": Word.BUSY_NS,
    "unsigned": Word.UNSIGNED,
    "ignored": Word.IGNORED,
}
"""What workers count, by name."""
SUPERVISOR_SLOT = 0xFFFF
SERVER_TEXT_AT, REASON_TEXT_AT = 320 * 8, 352 * 8
"""Where a connection's texts begin, in bytes: the server as HOST:PORT, and why the connection is no better."""
CONNECTION_TEXT = 256
"""Bytes of each of them, UTF-8, ended by a zero byte."""

# words of an entry, relative to its first, which is the state word
REVOKED, CLAIMED, FRAME, RECEIVED_NS, DEADLINE, STARTED, ORIGIN, ORIGIN_ENTRY, ORIGIN_SEQ, SIZES, TRIES = (
    range(1, 12)
)
"""`ORIGIN*`: serial (0: none), entry and seq that the request was pulled from. `SIZES`: four 16-bit numbers, lowest
first: bytes of reply subject, id and type, and the route's number."""
TEXT = 96
"""Bytes from an entry's beginning to its texts: reply subject, task id, type."""
ENTRY_WORDS = ENTRY_SIZE // 8
MAX_REPLY = 256
"""Bytes of the longest reply subject that an entry holds; a router's are about 30."""
MAX_ID, MAX_TYPE = 64, 96
FIRST = HEADER_SIZE // 8
# plain integers for the hot path: an enum member's `value` costs more than the store
E_RECEIVED, E_QUEUED, E_STARTED, E_ANSWERED, E_SENT = (
    int(s) for s in (State.RECEIVED, State.QUEUED, State.STARTED, State.ANSWERED, State.SENT)
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
