"""Does the steps of recovery on a ledger: answers what had started, and requeues what had not, also what the process
had dequeued from another's. `core/recovery_rules.py` decides which is which, `core/poison_tasks.py` the answer.

Their order makes a SIGKILL of the supervisor between any two instructions harmless: a request is in the standby's
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


class AnswerAndRequeue:
    """The steps, each on one process's remains. Counts the requests that it answers and requeues."""

    def __init__(self, standby: Standby, ledgers: LedgerCache, poison_tasks: PoisonTasks, counters: Counters) -> None:
        self._standby, self._ledgers = standby, ledgers
        self._poison_tasks, self._counters = poison_tasks, counters

    def answer_started(self, remains: Remains, answered: set[bytes]) -> None:
        """Claims at its origin what the process had dequeued and started. Answers for a dead one what it had started.

        Leaves to `confirm_sent` what it had sent, if the server may confirm that. `answered`: reply subjects that were
        answered from another ledger; those answered here are added.
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
            else:
                ledger.revoke(entry.index, entry.seq)

    def _claim_origin(self, entry: Entry) -> bool:
        """Claims a request in the ledger that it was dequeued from. False when another process has it.

        The consumer may have died, or be stopped, between storing its own entry and claiming the original.
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
            # the consumer has claimed it, perhaps too late, or another request has the entry, whose claim must stay
            return wins(token, owner)
        return claim(token, owner)

    def requeue_entries(self, remains: Remains) -> None:
        """Requeues what is in the ledger and had not started. Only revokes what a newer ledger has a copy of."""
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
                # the connection was taken over, and this request requeued from it, before the owner made this entry
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

        It copies each request to the standby's ledger, and does not send the token again: an earlier recovery may have
        done that, and its copy of the token is STALE from now on.
        """
        standby = self._standby
        for token in map(unpack, token_places(remains.ledger)):
            owner = self._ledgers.get(token.serial) if token.serial else None
            if owner is None or check(token, owner) is TokenState.STALE:
                continue
            copy = standby.copy(owner.frame(token.entry), owner.received_ns(token.entry))
            if not claim(token, owner):
                if copy is not None:
                    standby.ledger.release(copy)  # the owner lives, and has refused the request meanwhile
                continue
            # revoked as well, so that a stopped process that is resumed does not take the claim for its own
            owner.revoke(token.entry, token.seq)
            if copy is not None:
                standby.enqueue(copy)
            self.count_requeued(remains)

    def count_requeued(self, remains: Remains, count: int = 1) -> None:
        """Counts requests of these remains that run elsewhere."""
        remains.requeued += count
        self._counters.requeued += count

    def confirm_sent(self, remains: Remains, sent: Iterable[Entry], *, read: bool) -> None:
        """Settles the replies that the process had sent: answers for those that the server may not have `read`."""
        ledger = remains.ledger
        for entry in sent:
            if read:
                ledger.revoke(entry.index, entry.seq)
            elif not ledger.is_revoked(entry.index, entry.seq):
                outcome = Failed.because(FailureReason.WORKER_DIED, "and with it the server that had its reply")
                self._standby.answer_for(ledger, entry, outcome)
