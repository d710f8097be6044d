"""What becomes of the requests in the ledger of a process that cannot answer: a table over what is known of its time.

Every path of recovery asks the same question of each request: leave it, answer it, run it elsewhere, or wait for the
server to confirm its reply? A worker that died or hangs, and a process of an earlier start, differ in four facts only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto

from ajhost.core.deadline_budget import LONGEST_NS
from ajhost.ledger.layout import DEADLINE, ENTRY_WORDS, FIRST, State
from ajhost.ledger.view import Entry, Ledger


class Fact(Flag):
    """What differs from the usual case: a worker of this start has died, and all else lives."""

    #: The owner is only stopped, and goes on afterwards: what it has started remains its own.
    OWNER_STOPPED = auto()
    #: The shared queue of its time is gone, and with it the tokens of what was QUEUED.
    QUEUE_GONE = auto()
    #: The supervisor of its time is dead. It may have revoked a request, and have died before its answer left.
    SUPERVISOR_GONE = auto()
    #: It is not certain that the server which was sent replies is still there and has read them.
    SERVER_UNKNOWN = auto()


class Disposition(Enum):
    """What recovery does with a request."""

    #: Nothing: it is another process's, or settled.
    LEAVE = auto()
    #: It may have started: it is answered `worker died`.
    ANSWER = auto()
    #: It has not started: it runs elsewhere.
    REQUEUE = auto()
    #: Its reply has left: it is settled when the server has certainly read it, and answered otherwise.
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
"""For each state the first row whose fact is given. Before it: what is claimed, or revoked, is left; but of what a dead
supervisor had revoked, all that may have started goes by the table."""
_WAITING = (State.RECEIVED, State.QUEUED)


@dataclass(frozen=True, slots=True)
class Recoverable:
    """The requests of a ledger by what becomes of them; those that are left are in none."""

    requeue: tuple[Entry, ...]
    answer: tuple[Entry, ...]
    confirm: tuple[Entry, ...]


def disposition(entry: Entry, facts: Fact = USUALLY) -> Disposition:
    """What becomes of a request."""
    waits = entry.state in _WAITING
    if waits and (entry.revoked or entry.claimed):
        return Disposition.LEAVE
    if entry.revoked and Fact.SUPERVISOR_GONE not in facts:
        return Disposition.LEAVE
    return next(then for fact, then in DISPOSITION[entry.state] if fact in facts)


def classify(ledger: Ledger, facts: Fact = USUALLY) -> Recoverable:
    """Sorts the requests of a ledger."""
    found: dict[Disposition, list[Entry]] = {each: [] for each in Disposition}
    for entry in ledger.used():
        found[disposition(entry, facts)].append(entry)
    return Recoverable(
        tuple(found[Disposition.REQUEUE]),
        tuple(found[Disposition.ANSWER]),
        tuple(found[Disposition.CONFIRM]),
    )


def overdue(ledger: Ledger, now_ns: int) -> tuple[Entry, ...]:
    """Entries whose deadline has passed, which are neither revoked nor claimed.

    Without refusals that the kernel has taken: their deadline is early, for the case that the owner did not send them.
    """
    words = ledger.words
    # most entries are free or have time left, and reading two words costs less than copying an entry
    due = [
        index
        for index in ledger.touched()
        if 0 < words[FIRST + index * ENTRY_WORDS + DEADLINE] <= now_ns
        and words[FIRST + index * ENTRY_WORDS] & 0xFF
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
    """The first deadline among what runs, in monotonic nanoseconds.

    Later ones than any request has are passed over: a stray write would keep a process that hangs for ever.
    """
    words, latest = ledger.words, now_ns + LONGEST_NS
    places = (FIRST + index * ENTRY_WORDS for index in ledger.touched())
    running = (words[word + DEADLINE] for word in places if words[word] & 0xFF == State.STARTED)
    return min((deadline for deadline in running if deadline <= latest), default=None)
