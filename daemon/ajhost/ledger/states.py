"""The states of a ledger entry as a table: for each event the states before and after it, and the writer. A second
table decides whether a consumer's claim of a waiting request has won.

Every change of an entry's state is a row here. Each event is the method of that name of `ledger.writer.LedgerWriter`,
or of `ledger.view.Ledger` where another process writes. Those methods store without a check, since they run for each
request. In tests `tests/support/checked_ledger.py` raises on a step that is not in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class State(IntEnum):
    """The low byte of an entry's state word; the bytes above it are the entry's sequence number."""

    #: No request.
    FREE = 0
    #: The raw frame is in the receive buffer or in the store. If the owner dies or hangs, the request runs elsewhere.
    RECEIVED = 1
    #: As RECEIVED, and a token was sent to the shared queue: the consumer that receives it may start the request.
    QUEUED = 2
    #: Written immediately before the handler's first instruction. If the owner dies, the answer is `worker died`.
    STARTED = 3
    #: The reply waits for the kernel, or after a server's restart for its requester. If the owner dies, the answer is
    #: `worker died`.
    ANSWERED = 4
    #: The kernel has taken the reply, and the server has not confirmed it yet. If the owner dies, no answer is needed
    #: when its connection ends in order.
    SENT = 5
    #: Never stored: a FREE entry with a sequence number. It waits for the `start` of a request pulled from the queue;
    #: or its owner has answered a request that waited, and a consumer may still hold the token.
    RESERVED = 0xFE
    #: Never stored: a reader's word for any other number, which a stray write of native code has left.
    DAMAGED = 0xFF


class Writer(Enum):
    """The process that may write a word. Every word has one writer at a time."""

    #: The supervisor, when it makes the file.
    MAKER = "maker"
    #: The process that the ledger belongs to.
    OWNER = "owner"
    #: The owner, or the supervisor while the owner is dead or stopped.
    OWNER_OR_HEIR = "owner, or the supervisor for one that is dead or stopped"
    #: The supervisor, in the ledger of a worker.
    SUPERVISOR = "supervisor"
    #: The process that holds the entry's token, or the supervisor for a dead one.
    CONSUMER = "consumer"
    #: Any process of the host, in the supervisor's ledger. Two stores at the same moment mean the same.
    ANYBODY = "any process of the host"


@dataclass(frozen=True, slots=True)
class Transition:
    """One event: the states in which it may happen, the state after it, the writer, and when it happens."""

    event: str
    sources: frozenset[State]
    target: State
    writer: Writer
    when: str


_S, _OWNER = State, Writer.OWNER
_USED = frozenset({_S.RECEIVED, _S.QUEUED, _S.STARTED, _S.ANSWERED, _S.SENT})
_NOT_STARTED = frozenset({_S.RECEIVED, _S.QUEUED, _S.RESERVED})
_FREE, _ANSWERED = frozenset({_S.FREE}), frozenset({_S.ANSWERED})

# fmt: off
_ROWS = (
    ("receive_all", _FREE, _S.RECEIVED, _OWNER, "The owner received a request, or copied one of another ledger."),
    ("start_pulled", _FREE, _S.RESERVED, _OWNER, "A consumer received a token; the request is still its owner's."),
    ("queue", frozenset({_S.RECEIVED}), _S.QUEUED, _OWNER, "The kernel has taken the token."),
    ("take_back", frozenset({_S.RECEIVED, _S.QUEUED}), _S.RECEIVED, Writer.OWNER_OR_HEIR,
        "The owner is about to refuse a request that waits, unless a consumer has claimed it."),
    ("start", _NOT_STARTED, _S.STARTED, _OWNER, "The owner calls the handler next."),
    ("answer", frozenset({_S.STARTED}), _S.ANSWERED, _OWNER, "The owner writes the reply next."),
    ("refuse", (_NOT_STARTED | {_S.STARTED}) - {_S.QUEUED}, _S.ANSWERED, _OWNER,
        "The owner answers the request without a result."),
    ("sent", _ANSWERED, _S.SENT, _OWNER, "The kernel has taken the reply."),
    ("recall", _ANSWERED | {_S.SENT}, _S.ANSWERED, _OWNER,
        "The connection ended before the server confirmed the reply, or before the requester was back."),
    ("release_all", _USED | {_S.RESERVED}, _S.FREE, _OWNER,
        "The server has confirmed the reply, or another process has the request."),
    ("free_entry", _USED | {_S.DAMAGED}, _S.FREE, Writer.SUPERVISOR,
        "The supervisor has settled the request of a dead owner."),
)
# fmt: on
TRANSITIONS: dict[str, Transition] = {row[0]: Transition(*row) for row in _ROWS}


class Claim(Enum):
    """The result of a claim, by the state of the claimed entry after `CLAIMED` was stored."""

    #: The consumer runs the request, and its owner releases the entry.
    WON = "won"
    #: The owner answers the request, or another process has it. The consumer drops it.
    LOST = "lost"
    #: The owner has taken the request back, and is about to find the claim or to refuse the request: check again.
    OPEN = "open"


AFTER_CLAIM: dict[State, tuple[Claim, str]] = {
    State.QUEUED: (Claim.WON, "The owner, if it takes the request back, finds the claim."),
    State.RECEIVED: (Claim.OPEN, "The owner took it back. It finds the claim and frees the entry, or answers."),
    State.ANSWERED: (Claim.LOST, "The owner found no claim, and answers."),
    State.SENT: (Claim.LOST, "The owner found no claim, and has answered."),
    State.RESERVED: (Claim.LOST, "The entry is free, and keeps the sequence number: its owner has answered."),
    State.STARTED: (Claim.LOST, "The owner runs it itself."),
    State.FREE: (Claim.WON, "No sequence number, or another request's: the owner found the claim."),
    State.DAMAGED: (Claim.WON, "A stray write. A second answer is better than none."),
}
"""By the state of an entry whose sequence number is that of the claim."""


def target(event: str) -> int:
    """Returns the number that an event stores. For constants: call it at import, not for each request."""
    return int(TRANSITIONS[event].target)
