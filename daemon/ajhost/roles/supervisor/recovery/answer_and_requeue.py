"""The steps of recovery on a ledger: what had started is answered, what had not started runs elsewhere.

A SIGKILL of the supervisor between any two instructions is harmless by their order: a request is in the standby's
ledger before it is revoked in its old one, and its token is sent after that (docs/architecture.md, "Recovery").
"""

from __future__ import annotations

from collections.abc import Iterable

from ajhost.core.host_counters import Counters
from ajhost.core.poison_tasks import PoisonTasks
from ajhost.core.recovery_rules import Fact, classify
from ajhost.ledger.layout import State, Word
from ajhost.ledger.queue_token import Token, TokenState, check, token_places, unpack
from ajhost.ledger.view import Entry
from ajhost.protocol.frames import reply_of
from ajhost.protocol.outcome import Failed
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.shared_queue.claim import claim, wins
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby


class Takeover:
    """Does one step on one process's remains, and counts what became of its requests."""

    def __init__(
        self, standby: Standby, ledgers: LedgerCache, poison_tasks: PoisonTasks, counters: Counters
    ) -> None:
        self._standby, self._ledgers = standby, ledgers
        self._poison_tasks, self._counters = poison_tasks, counters

    def answer_started(self, remains: Remains, answered: set[bytes]) -> None:
        """Claims at its origin what the process had pulled and started; answers what it had started, unless it goes on.

        Not what it had sent on a connection that is whole: see `confirm_sent`. `answered`: reply subjects that another
        ledger has answers for; those answered here are added.
        """
        ledger = remains.ledger
        if not remains.stopped:
            ledger.recount_touched()
        for entry in classify(ledger, remains.facts & ~Fact.OWNER_STOPPED).answer:
            claimed = self._claim_origin(entry)
            if remains.stopped:
                continue
            if claimed and entry.reply not in answered:
                answered.add(entry.reply)
                self._standby.answer_for(ledger, entry, self._poison_tasks.outcome(entry, remains.how))
                remains.answered += 1
                self._counters.answered += 1
            ledger.revoke(entry.index, entry.seq)

    def _claim_origin(self, entry: Entry) -> bool:
        """Claims a request at its origin; False when another process has it.

        The consumer may have died, or stand still, between storing its own entry and claiming the original.
        """
        if entry.origin is None:
            return True
        token = Token(*entry.origin, 0)
        owner = self._ledgers.get(token.serial)
        if owner is None or token.entry >= owner.entries:
            return True
        if owner.is_revoked(token.entry, token.seq):
            return False  # the consumer was stopped, and the supervisor moved the request
        if owner.is_claimed(token.entry, token.seq) or owner.state(token.entry)[0] != token.seq:
            # the consumer had claimed it, but may have come after its owner; another request's claim must stay
            return wins(token, owner)
        return claim(token, owner)

    def requeue_entries(self, remains: Remains) -> None:
        """Requeues what is in the ledger and had not started."""
        ledger = remains.ledger
        taken_over = ledger.words[Word.EPOCH] and ledger.is_taken_over()
        if remains.copied:
            for entry in ledger.used():
                waits = entry.state in (State.RECEIVED, State.QUEUED) and not (entry.revoked or entry.claimed)
                if waits and reply_of(ledger.frame(entry.index)) in remains.copied:
                    remains.places.add(entry.frame_at)
                    ledger.revoke(entry.index, entry.seq)
        for entry in classify(ledger, remains.facts).requeue:
            if taken_over and ledger.chunk_at <= entry.frame_at < ledger.chunk_at + ledger.chunk_size:
                # this entry was made after its connection, with this request in it, was taken over
                ledger.revoke(entry.index, entry.seq)
                continue
            remains.places.add(entry.frame_at)
            copy = self._standby.copy(ledger.frame(entry.index), entry.received_ns)
            ledger.revoke(entry.index, entry.seq)
            if copy is not None:
                self._standby.enqueue(copy)
                self.count_requeued(remains)

    def requeue_tokens(self, remains: Remains) -> None:
        """Requeues the requests whose tokens the process had received and not used.

        The requests are moved to the standby's ledger and not just their tokens sent again: another copy of the same
        token, which an earlier recovery may have sent, is STALE then.
        """
        standby = self._standby
        for token in map(unpack, token_places(remains.ledger)):
            owner = self._ledgers.get(token.serial) if token.serial else None
            if owner is None or check(token, owner) is TokenState.STALE:
                continue
            copy = standby.copy(owner.frame(token.entry), owner.received_ns(token.entry))
            if not claim(token, owner):
                if copy is not None:
                    standby.ledger.release(copy)  # its owner, which lives, has refused it meanwhile
                continue
            # the process, if it goes on, does not take the claim for its own
            owner.revoke(token.entry, token.seq)
            if copy is not None:
                standby.enqueue(copy)
            self.count_requeued(remains)

    def count_requeued(self, remains: Remains, count: int = 1) -> None:
        """Requests of these remains run elsewhere."""
        remains.requeued += count
        self._counters.requeued += count

    def confirm_sent(self, remains: Remains, sent: Iterable[Entry], *, read: bool) -> None:
        """Settles what the process had sent: nothing to do if the server has `read` it, else it is answered."""
        ledger = remains.ledger
        for entry in sent:
            if not read and not ledger.is_revoked(entry.index, entry.seq):
                outcome = Failed.because(
                    FailureReason.WORKER_DIED, "and with it the server that had its reply"
                )
                self._standby.answer_for(ledger, entry, outcome)
            ledger.revoke(entry.index, entry.seq)
