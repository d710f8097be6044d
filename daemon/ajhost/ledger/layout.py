"""The ledger's layout: every word of the shared file, with its writer and its meaning. Decides how large its parts are
for a number of requests and the server's `max_payload`; `roles/ledger_sizes.py` knows those numbers.

Every word of the header and of an entry is a row of this file. Each is stored through a native `memoryview.cast("Q")`:
one aligned 8-byte store, which a SIGKILL cannot tear (`struct.pack_into("<Q")` stores byte by byte).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ajhost.ledger.states import State as State
from ajhost.ledger.states import Writer, target

MAKER, OWNER, OWNER_OR_HEIR = Writer.MAKER, Writer.OWNER, Writer.OWNER_OR_HEIR
SUPERVISOR, CONSUMER, ANYBODY = Writer.SUPERVISOR, Writer.CONSUMER, Writer.ANYBODY

MAGIC = int.from_bytes(b"ajhostL\n", "big")
LAYOUT = 3
HEADER_SIZE = 4096
LARGEST = (1 << 64) - 1
"""The largest number that a word can hold."""
ENTRY_SIZE = 512


class Phase(IntEnum):
    """The phase of a process's life, as the process itself stores it."""

    #: The process has not subscribed yet.
    STARTING = 0
    #: The process has subscribed once. `SUBSCRIBED` says whether it is subscribed now.
    SERVING = 1
    #: The process leaves the queue group and finishes what it holds.
    LEAVING = 2


class HeaderWord(int):
    """The index of a word of the header, with its writer and its meaning."""

    writer: Writer
    meaning: str

    def __new__(cls, number: int, writer: Writer, meaning: str) -> HeaderWord:
        word = super().__new__(cls, number)
        word.writer, word.meaning = writer, meaning
        return word


class Word:
    # fmt: off
    MAGIC = HeaderWord(0, MAKER, "Marks the file as a ledger. The maker writes it last, so the header is whole.")
    LAYOUT = HeaderWord(1, MAKER, "The number of this layout, `LAYOUT`.")
    SERIAL = HeaderWord(2, MAKER, "The process's number, unique over all starts; the file's name.")
    SLOT = HeaderWord(3, MAKER, "The worker's slot, or `SUPERVISOR_SLOT`.")
    GENERATION = HeaderWord(4, MAKER, "The generation whose code and settings the process has.")
    PID = HeaderWord(5, OWNER, "The process id.")
    ENTRIES = HeaderWord(6, MAKER, "How many entries there are.")
    CHUNK_AT = HeaderWord(7, MAKER, "Where the receive buffer begins, in bytes.")
    CHUNK_SIZE = HeaderWord(8, MAKER, "Bytes of the receive buffer.")
    STORE_AT = HeaderWord(9, MAKER, "Where the frame store begins, in bytes.")
    STORE_SIZE = HeaderWord(10, MAKER, "Bytes of the frame store.")
    CHUNK_PREPARED = HeaderWord(11, MAKER,
        "Bytes of the receive buffer that the file system has set aside for good; 0: all of it.")
    STORE_PREPARED = HeaderWord(12, MAKER, "The same of the frame store.")
    PHASE = HeaderWord(16, OWNER, "A `Phase`: how far the owner is in its life.")
    HEARTBEAT = HeaderWord(17, OWNER, "When the owner's loop last wrote this, in monotonic nanoseconds; 0: never.")
    EPOCH = HeaderWord(18, OWNER_OR_HEIR, "The number of the present connection to the server; 0: none yet.")
    RECEIVED_POS = HeaderWord(19, OWNER_OR_HEIR,
        "Stream position: bytes of this connection that were received into the receive buffer.")
    PARSED_POS = HeaderWord(20, OWNER_OR_HEIR,
        "Stream position: bytes whose frames are in entries. It is ahead of `RECEIVED_POS` while the owner "
        "skips the rest of a frame that no receive buffer holds.")
    BASE = HeaderWord(21, OWNER_OR_HEIR, "The stream position of the receive buffer's first byte.")
    TLS = HeaderWord(22, OWNER, "1: the connection is encrypted, so only the owner can read on.")
    FENCED_EPOCH = HeaderWord(24, SUPERVISOR,
        "The epoch of the connection that the supervisor takes over. The supervisor stores it before it reads "
        "the first byte, so that a worker that goes on does not read in the middle of the stream.")
    SUBSCRIBED = HeaderWord(25, OWNER, "The epoch in which the server last had all subscriptions.")
    DRAINED_EPOCH = HeaderWord(26, SUPERVISOR,
        "The last epoch whose takeover the supervisor has finished. If `FENCED_EPOCH` is another one when a "
        "start finds the ledger, its supervisor died during a takeover, and the start resumes that.")
    HIGH_WATER = HeaderWord(27, OWNER_OR_HEIR,
        "So many entries, the first ones, were ever in use. Readers look at no others.")
    SERVER = HeaderWord(28, ANYBODY,
        "A hash of the identity of the server to which the host last connected (`core/server_restart.py`).")
    BACK_BY = HeaderWord(29, ANYBODY,
        "By when requesters must have reconnected after a server's restart, in monotonic nanoseconds.")
    SOCKET = HeaderWord(30, OWNER,
        "The owner's descriptor of the present connection; 0: none. A process that duplicates it and then "
        "finds this word and `EPOCH` unchanged has a duplicate of just that connection.")
    SOCKET_LOST = HeaderWord(31, OWNER,
        "The epoch whose socket user code has closed in the owner, and its duplicate there: only the supervisor "
        "can read that connection on.")
    RECEIVED = HeaderWord(32, OWNER, "Counter: requests that came on the process's own connection.")
    COMPLETED = HeaderWord(33, OWNER, "Counter: tasks whose handler returned a result.")
    FAILED = HeaderWord(34, OWNER, "Counter: tasks that are to be tried again (`AJ-Error`).")
    TERMINATED = HeaderWord(35, OWNER, "Counter: tasks that are not to be tried again (`AJ-Terminate`).")
    REFUSED = HeaderWord(36, OWNER, "Counter: requests that were answered without a start.")
    ENQUEUED = HeaderWord(37, OWNER, "Counter: requests that were put into the shared queue.")
    DEQUEUED = HeaderWord(38, OWNER, "Counter: requests that were started from the shared queue.")
    STUCK = HeaderWord(39, OWNER, "Counter: handlers that did not end when they were cancelled.")
    BUSY_NS = HeaderWord(40, OWNER, "Counter: nanoseconds that handlers ran, added over all slots.")
    WINDOW_OPENED = HeaderWord(41, ANYBODY, "When requesters last had to reconnect, in monotonic nanoseconds.")
    CONNECTION = HeaderWord(42, OWNER, "A `ConnectionState`. The owner writes it after the words and texts about it.")
    CONNECTION_SINCE = HeaderWord(43, OWNER, "Since when the connection is in that state, in monotonic nanoseconds.")
    FAILED_ATTEMPTS = HeaderWord(44, OWNER, "Attempts of the owner to connect that failed since the last success.")
    RECONNECTS = HeaderWord(45, OWNER, "Counter: connections after the first.")
    CONNECTION_REASON = HeaderWord(46, OWNER, "A `Reason`: why the last connection or attempt failed; 0: none did.")
    REFUSED_REPLIES = HeaderWord(47, OWNER, "Counter: replies that the server refused for lack of a permission.")
    WORKER_STATE = HeaderWord(48, SUPERVISOR,
        "The number of a `WorkerState`: what the supervisor takes this worker for, shown by status and "
        "metrics; 0: nothing, the worker's own words count.")
    READING_PAUSED = HeaderWord(49, OWNER,
        "1: the owner leaves its connection unread because no entry is free. Otherwise bytes that wait there "
        "tell the supervisor that the owner hangs.")
    SIZE_AT_START = HeaderWord(59, OWNER,
        "Resident bytes before the first task: what imports and lifespan take; 0: not known yet.")
    CLOCK_AHEAD = HeaderWord(56, ANYBODY,
        "Nanoseconds by which this machine's clock is ahead of the routers' (`core/clock_offset.py`).")
    UNSIGNED = HeaderWord(57, OWNER, "Counter: requests whose signature was refused.")
    IGNORED = HeaderWord(58, OWNER, "Counter: requests whose reply subject may not be answered.")
    UNSUBSCRIBED_SINCE = HeaderWord(60, OWNER,
        "Since when the server lacks a subscription of the owner, in monotonic nanoseconds; 0: it has all.")
    LOGIN_GATE = HeaderWord(384, ANYBODY, "The first of five words of `core/login_gate.py`.")
    STACKS_TOLD = HeaderWord(392, ANYBODY, "The first of 64 words of `core/report_throttle.py`.")
    RECONNECTS_BY = HeaderWord(456, OWNER,
        "Counters, a word for each `Reason`: connections after the first, by what had ended the one before.")
    TOKENS = HeaderWord(64, OWNER,
        "The first of 64 places of four words (`ledger/queue_token.py`), into which the kernel stores the "
        "tokens that the owner receives. A request named there has not started here unless an entry says so.")
    # fmt: on


HEADER: dict[str, HeaderWord] = {name: word for name, word in vars(Word).items() if isinstance(word, HeaderWord)}
"""Every word of the header, by name."""
MADE = sorted((word for word in HEADER.values() if word.writer is MAKER), reverse=True)
"""The words that only the maker writes. The magic is last, since it says that the header is whole."""

TOKEN_PLACES = 64
COUNTERS = {
    "received": Word.RECEIVED,
    "completed": Word.COMPLETED,
    "failed": Word.FAILED,
    "terminated": Word.TERMINATED,
    "refused": Word.REFUSED,
    "lent": Word.ENQUEUED,
    "pulled": Word.DEQUEUED,
    "stuck": Word.STUCK,
    "busy_ns": Word.BUSY_NS,
    "unsigned": Word.UNSIGNED,
    "ignored": Word.IGNORED,
}
"""The counters of workers, by name."""
SUPERVISOR_SLOT = 0xFFFF
SERVER_TEXT_AT, REASON_TEXT_AT = 320 * 8, 352 * 8
"""Where a connection's texts begin, in bytes: the server as HOST:PORT, and the last failure."""
CONNECTION_TEXT = 256
"""Bytes of each of them, UTF-8, ended by a zero byte."""

# fmt: off
ENTRY: dict[str, tuple[Writer, str]] = {
    "STATE": (OWNER,
        "`seq << 8 | State` (`ledger/states.py`). The owner writes it last: an entry exists only when it is whole."),
    "REVOKED": (SUPERVISOR,
        "The sequence number of a request that the supervisor answers or requeues: the owner must neither "
        "start nor answer it."),
    "CLAIMED": (CONSUMER, "The sequence number of a request that a consumer has started in its own ledger."),
    "FRAME": (OWNER, "Where the raw frame lies: its offset in the file `<< 32 |` its bytes."),
    "RECEIVED_NS": (OWNER, "When the host received the request, in monotonic nanoseconds."),
    "DEADLINE": (OWNER, "By when the request must be answered, in monotonic nanoseconds; 0: not known yet."),
    "STARTED": (OWNER, "When the owner called the handler, in monotonic nanoseconds; 0: it refused the request."),
    "ORIGIN": (OWNER, "The serial of the ledger from which the owner pulled the request; 0: it came to this process."),
    "ORIGIN_ENTRY": (OWNER, "The index of its entry there."),
    "ORIGIN_SEQ": (OWNER, "The sequence number of its entry there."),
    "SIZES": (OWNER,
        "Four numbers of 16 bits, the lowest first: bytes of the reply subject, of the task's id, of its "
        "type, and the route's number."),
    "TRIES": (OWNER, "How often the router has tried the task."),
}
# fmt: on
"""The words of an entry in their order, with writer and meaning. The reply subject, the task's id and its type follow
them as texts.
"""
# plain integers relative to the state word: they are added for each request
(
    STATE, REVOKED, CLAIMED, FRAME, RECEIVED_NS, DEADLINE, STARTED, ORIGIN, ORIGIN_ENTRY, ORIGIN_SEQ, SIZES, TRIES,
) = range(len(ENTRY))  # fmt: skip
TEXT = 96
"""Bytes from an entry's beginning to its texts: reply subject, task id, type."""
ENTRY_WORDS = ENTRY_SIZE // 8
MAX_REPLY = 256
"""Bytes of the longest reply subject that an entry holds; a router's are about 30."""
MAX_ID, MAX_TYPE = 64, 96
PREPARED_FRAME = 1 << 20
"""Bytes of the largest frame for which memory is always set aside: a NATS server's default `max_payload`."""
FIRST = HEADER_SIZE // 8
# plain integers for the hot path: an enum member's `value` costs more than the store
E_RECEIVED, E_QUEUED, E_STARTED = target("receive_all"), target("queue"), target("start")
E_ANSWERED, E_SENT = target("answer"), target("sent")


class LedgerError(ValueError):
    """The file is no ledger of this layout."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a ledger file's parts, in bytes (`entries` is a count)."""

    entries: int
    chunk: int
    store: int
    prepared_chunk: int = 0
    """Bytes of the chunk that are set aside for good; 0: all. The rest is set aside while a large frame is there."""
    prepared_store: int = 0

    @property
    def size(self) -> int:
        return self.store_at + self.store

    @property
    def chunk_at(self) -> int:
        return HEADER_SIZE + self.entries * ENTRY_SIZE

    @property
    def store_at(self) -> int:
        return self.chunk_at + self.chunk

    @property
    def prepared(self) -> tuple[tuple[int, int], ...]:
        """Returns offset and size of each part that is set aside for good."""
        return (
            (0, self.chunk_at + (self.prepared_chunk or self.chunk)),
            (self.store_at, self.prepared_store or self.store),
        )

    @property
    def prepared_size(self) -> int:
        return sum(size for _, size in self.prepared)


def geometry_for(held: int, max_payload: int) -> Geometry:
    """Returns the geometry of a ledger for `held` requests at once, from a server with `max_payload`.

    The chunk has room for two of the largest frames and a read, so that a partial frame can always be moved without
    overlap. The store has room for `held` typical frames, or a few of the largest. Memory for frames beyond
    `PREPARED_FRAME` is set aside only while they exist: a server may allow 64 MiB, and few tasks are so large.
    """
    frame, prepared = max_payload + 8192, min(max_payload, PREPARED_FRAME) + 8192
    entries = 512
    while entries < held * 2 + 512:
        entries *= 2
    typical = held * 4096
    return Geometry(
        entries,
        _page(2 * frame + (1 << 18)),
        _page(max(4 * frame, typical)),
        _page(2 * prepared + (1 << 18)),
        _page(max(4 * prepared, typical)),
    )


def _page(size: int) -> int:
    return (size + 4095) & ~4095


@dataclass(frozen=True, slots=True)
class Identity:
    """The process that owns a ledger. `serial` is unique over all processes and starts of a runtime directory."""

    serial: int
    slot: int
    generation: int


def create(buffer: memoryview, geometry: Geometry, identity: Identity) -> None:
    """Writes the header of a new ledger into zeroed memory, the magic last."""
    words = buffer.cast("Q")
    words[Word.LAYOUT] = LAYOUT
    words[Word.SERIAL] = identity.serial
    words[Word.SLOT] = identity.slot
    words[Word.GENERATION] = identity.generation
    words[Word.ENTRIES] = geometry.entries
    words[Word.CHUNK_AT], words[Word.CHUNK_SIZE] = geometry.chunk_at, geometry.chunk
    words[Word.STORE_AT], words[Word.STORE_SIZE] = geometry.store_at, geometry.store
    words[Word.CHUNK_PREPARED], words[Word.STORE_PREPARED] = geometry.prepared_chunk, geometry.prepared_store
    words[Word.MAGIC] = MAGIC
    words.release()
