"""What a process that died or hangs leaves in its ledger: what runs elsewhere, and what must be answered for."""

from __future__ import annotations

from dataclasses import dataclass

from ajhost.ledger.layout import DEADLINE, ENTRY_WORDS, FIRST, State
from ajhost.ledger.view import Entry, Ledger


@dataclass(frozen=True, slots=True)
class Recoverable:
    """`waiting` had not started and has no token; `started` had, or its reply had not left yet; `sent` has left."""

    waiting: tuple[Entry, ...]
    started: tuple[Entry, ...]
    sent: tuple[Entry, ...]


def classify(
    ledger: Ledger, *, tokens_lost: bool = False, answers_lost: bool = False, server_lost: bool = False
) -> Recoverable:
    """Sorts the entries. QUEUED ones are in neither while their tokens are on their way to another worker.

    `tokens_lost`: the shared queue of their time is gone. `answers_lost`: so is the supervisor that spoke for them, and
    with it perhaps an answer that it had written down as given and not sent: what had started is answered again.
    `server_lost`: the server that was sent replies is not, or not for certain, the one that is there: they may not have
    been read.
    """
    waiting, started, sent = [], [], []
    for entry in ledger.used():
        if entry.state is State.SENT and not server_lost:
            sent.append(entry)
        elif entry.state in (State.STARTED, State.ANSWERED, State.SENT, State.DAMAGED):
            # what a stray write has damaged may have started, and nobody may run it twice
            if answers_lost or not entry.revoked:
                started.append(entry)
        elif entry.revoked or entry.claimed:
            continue
        elif entry.state is State.RECEIVED or (tokens_lost and entry.state is State.QUEUED):
            waiting.append(entry)
    return Recoverable(tuple(waiting), tuple(started), tuple(sent))


def overdue(ledger: Ledger, now_ns: int) -> tuple[Entry, ...]:
    """Entries whose deadline has passed while their owner cannot answer, and that nobody has answered.

    A refusal that the kernel has taken is none of them: its deadline is early, for the case that its owner kept it.
    """
    words = ledger.words
    # most are free or have time left, and a copy of an entry costs more than a look
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


def earliest_deadline(ledger: Ledger) -> int | None:
    """The first deadline among what runs, in monotonic nanoseconds."""
    words = ledger.words
    places = (FIRST + index * ENTRY_WORDS for index in ledger.touched())
    return min(
        (words[word + DEADLINE] for word in places if words[word] & 0xFF == State.STARTED), default=None
    )
