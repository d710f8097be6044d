"""What recovery does with each request of a process that cannot answer, by the request's state and four facts: leave
it, answer it `worker died:`, run it elsewhere, or wait for the server to confirm its reply. Finds overdue ones.

A worker that died or hangs, and a process of an earlier start, differ in these facts only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto

from ajhost.core.deadline_budget import LONGEST_NS
from ajhost.ledger.layout import DEADLINE, ENTRY_WORDS, FIRST, State
from ajhost.ledger.view import Entry, Ledger


class Fact(Flag):
    """A difference from the usual case, which is that a worker of this start died while all other processes live."""

    #: The owner is only stopped, and continues afterwards: it keeps the requests that it has started.
    OWNER_STOPPED = auto()
    #: The owner's shared queue is gone, and with it the tokens of QUEUED requests.
    QUEUE_GONE = auto()
    #: The owner's supervisor is dead. It may have revoked a request and died before its answer left.
    SUPERVISOR_GONE = auto()
    #: It is not known whether the server has read the replies that the owner sent.
    SERVER_UNKNOWN = auto()


class Disposition(Enum):
    """What recovery does with a request."""

    #: Nothing: the request is settled, or another process answers it.
    LEAVE = auto()
    #: The request may have started: the supervisor answers it `worker died`.
    ANSWER = auto()
    #: The request has not started: it runs elsewhere.
    REQUEUE = auto()
    #: The reply has left: the request is settled if the server is known to have read it, and answered otherwise.
    CONFIRM = auto()


USUALLY = Fact(0)
DISPOSITION: dict[State, tuple[tuple[Fact, Disposition], ...]] = {
    State.FREE: ((USUALLY, Disposition.LEAVE),),
    State.RECEIVED: ((USUALLY, Disposition.REQUEUE),),
    State.QUEUED: ((Fact.QUEUE_GONE, Disposition.REQUEUE), (USUALLY, Disposition.LEAVE)),
    State.STARTED: ((Fact.OWNER_STOPPED, Disposition.LEAVE), (USUALLY, Disposition.ANSWER)),
    State.ANSWERED: ((Fact.OWNER_STOPPED, Disposition.LEAVE), (USUALLY, Disposition.ANSWER)),
    State.SENT: (
        (Fact.OWNER_STOPPED, Disposition.LEAVE),
        (Fact.SERVER_UNKNOWN, Disposition.ANSWER),
        (USUALLY, Disposition.CONFIRM),
    ),
    State.DAMAGED: ((Fact.OWNER_STOPPED, Disposition.LEAVE), (USUALLY, Disposition.ANSWER)),
}
"""For each state the first row whose fact is given. `disposition` leaves claimed and revoked requests before it looks
here, except those that may have started and that a dead supervisor had revoked.
"""
_WAITING = (State.RECEIVED, State.QUEUED)


@dataclass(frozen=True, slots=True)
class Recoverable:
    """The requests of a ledger by their `Disposition`, without those of LEAVE."""

    requeue: tuple[Entry, ...]
    answer: tuple[Entry, ...]
    confirm: tuple[Entry, ...]


def disposition(entry: Entry, facts: Fact = USUALLY) -> Disposition:
    """Returns what recovery does with a request."""
    waits = entry.state in _WAITING
    if waits and (entry.revoked or entry.claimed):
        return Disposition.LEAVE
    if entry.revoked and Fact.SUPERVISOR_GONE not in facts:
        return Disposition.LEAVE
    return next(then for fact, then in DISPOSITION[entry.state] if fact in facts)


def classify(ledger: Ledger, facts: Fact = USUALLY) -> Recoverable:
    """Sorts the requests of a ledger by their disposition."""
    found: dict[Disposition, list[Entry]] = {each: [] for each in Disposition}
    for entry in ledger.used():
        found[disposition(entry, facts)].append(entry)
    return Recoverable(*(tuple(found[d]) for d in (Disposition.REQUEUE, Disposition.ANSWER, Disposition.CONFIRM)))


def overdue(ledger: Ledger, now_ns: int) -> tuple[Entry, ...]:
    """Returns the entries whose deadline has passed and which are neither revoked nor claimed.

    Leaves out refusals that the kernel has taken. Their deadline is early, in case the owner hangs with them unsent.
    """
    words = ledger.words
    # most entries are free or have time left, and reading two words costs less than copying an entry
    due = [
        index
        for index in ledger.touched()
        if 0 < words[FIRST + index * ENTRY_WORDS + DEADLINE] <= now_ns and words[FIRST + index * ENTRY_WORDS] & 0xFF
    ]
    return tuple(
        entry
        for entry in map(ledger.entry, due)
        if entry.state is not State.FREE
        and 0 < entry.deadline_ns <= now_ns
        and not (entry.revoked or entry.claimed)
        and not (entry.refused and entry.state is State.SENT)
    )


def earliest_deadline(ledger: Ledger, now_ns: int) -> int | None:
    """Returns the first deadline of the STARTED requests, in monotonic nanoseconds.

    Ignores deadlines later than any request can have: after a stray write a process that hangs would never be killed.
    """
    words, latest = ledger.words, now_ns + LONGEST_NS
    places = (FIRST + index * ENTRY_WORDS for index in ledger.touched())
    running = (words[word + DEADLINE] for word in places if words[word] & 0xFF == State.STARTED)
    return min((deadline for deadline in running if deadline <= latest), default=None)
