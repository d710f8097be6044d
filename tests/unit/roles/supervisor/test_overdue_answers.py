"""When the supervisor answers for an owner that lives and does not beat."""

from __future__ import annotations

from typing import cast

import pytest

from ajhost.ledger.layout import Word
from ajhost.ledger.view import Entry, Ledger
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.outcome import Outcome
from ajhost.roles.supervisor.overdue_answers import OverdueAnswers
from ajhost.roles.supervisor.standby import Standby
from tests.support.memory_ledger import ledger_in_memory

MS = 1_000_000
NOW = 10_000 * MS


class Answers:
    """What a standby was told to answer."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    def answer_for(self, ledger: Ledger, entry: Entry, outcome: Outcome, *, stands_still: bool) -> None:
        del outcome, stands_still
        self.replies.append(entry.reply)
        ledger.revoke(entry.index, entry.seq)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def overdue(answers: Answers) -> OverdueAnswers:
    return OverdueAnswers(cast("Standby", answers))


def owner(*, beat_ago: int, overdue_for: int) -> LedgerWriter:
    """A worker with one task that runs, as it stands `NOW`; both in milliseconds."""
    ledger = ledger_in_memory()
    index = ledger.receive(0, 0, 1)
    ledger.set_deadline(index, NOW - overdue_for * MS)
    ledger.start(index, 2, b"r", b"id", b"type", 0, 1)
    ledger.words[Word.HEARTBEAT] = NOW - beat_ago * MS
    return ledger


@pytest.mark.parametrize(
    ("beat_ago", "overdue_for", "in_time", "looks"),
    [
        (150, 10, True, 2),  # the owner may be about to answer
        (150, 100, True, 2),  # as it was 50 ms ago, its beat had not been missed
        (200, 30, True, 2),  # 50 ms ago nothing was due
        (200, 60, True, 1),  # two looks, 50 ms apart, would have found it
        (200, 60, False, 2),  # the owner may have been held up as we were
        (100, 60, True, 0),  # it beats
    ],
)
def test_it_is_answered_once_two_looks_have_found_it_or_would_have(
    overdue: OverdueAnswers, answers: Answers, beat_ago: int, overdue_for: int, in_time: bool, looks: int
) -> None:
    ledger = owner(beat_ago=beat_ago, overdue_for=overdue_for)
    needed = 0
    for look in (1, 2, 3):
        overdue.check(ledger, NOW, 0, on_time=in_time)
        if answers.replies and not needed:
            needed = look
    assert needed == looks
    assert answers.replies == ([b"r"] if looks else []), "said once"


def test_an_owner_that_beats_again_in_between_is_found_anew(overdue: OverdueAnswers, answers: Answers) -> None:
    ledger = owner(beat_ago=150, overdue_for=10)
    overdue.check(ledger, NOW, 0)
    ledger.words[Word.HEARTBEAT] = NOW
    overdue.check(ledger, NOW, 0)
    ledger.words[Word.HEARTBEAT] = NOW - 150 * MS
    overdue.check(ledger, NOW, 0)
    assert not answers.replies
    overdue.check(ledger, NOW, 0)
    assert answers.replies == [b"r"]
