"""What a dead process leaves: each entry is waiting, started, or somebody else's."""

from __future__ import annotations

import pytest

from ajhost.core.deadline_budget import LONGEST_NS
from ajhost.core.recovery_rules import (
    DISPOSITION,
    USUALLY,
    Disposition,
    Fact,
    classify,
    disposition,
    earliest_deadline,
    overdue,
)
from ajhost.ledger.layout import State
from ajhost.ledger.view import Entry
from ajhost.ledger.writer import LedgerWriter
from tests.support.memory_ledger import ledger_in_memory

FRAME = b"MSG s 1 r 0\r\n\r\n"


def put(owner: LedgerWriter, state: State, deadline_ns: int = 0, reply: bytes = b"r") -> int:
    index = owner.receive_copy(FRAME, 1)
    assert index is not None
    owner.set_deadline(index, deadline_ns)
    if state is State.QUEUED:
        owner.queue(index, owner.state(index)[0])
    elif state in (State.STARTED, State.ANSWERED):
        owner.start(index, 2, reply, b"id", b"type", 3, 4)
    if state is State.ANSWERED:
        owner.answer(index)
    return index


@pytest.mark.parametrize(
    ("state", "queue_gone", "requeued", "answered"),
    [
        (State.RECEIVED, False, 1, 0),
        (State.RECEIVED, True, 1, 0),
        (State.QUEUED, False, 0, 0),
        (State.QUEUED, True, 1, 0),
        (State.STARTED, False, 0, 1),
        (State.STARTED, True, 0, 1),
        (State.ANSWERED, False, 0, 1),
        (State.ANSWERED, True, 0, 1),
    ],
)
def test_an_entry_waits_or_had_started(state: State, queue_gone: bool, requeued: int, answered: int) -> None:
    owner = ledger_in_memory()
    index = put(owner, state)
    facts = Fact.QUEUE_GONE if queue_gone else USUALLY
    found = classify(owner, facts)
    assert (len(found.requeue), len(found.answer)) == (requeued, answered)
    owner.revoke(index, owner.state(index)[0])
    assert classify(owner, facts) == classify(ledger_in_memory()), "what was said is nobody's to inherit"


@pytest.mark.parametrize("state", [State.STARTED, State.ANSWERED])
def test_what_was_said_of_a_started_request_counts_as_answered_unless_answers_are_lost(state: State) -> None:
    owner = ledger_in_memory()
    index = put(owner, state)
    owner.revoke(index, owner.state(index)[0])
    assert not classify(owner).answer
    assert [entry.index for entry in classify(owner, Fact.SUPERVISOR_GONE).answer] == [index]


@pytest.mark.parametrize("facts", [USUALLY, Fact.QUEUE_GONE])
def test_what_a_puller_started_is_not_inherited_from_its_first_owner(facts: Fact) -> None:
    owner = ledger_in_memory()
    index = put(owner, State.QUEUED)
    owner.claim(index, owner.state(index)[0])
    assert classify(owner, facts) == classify(ledger_in_memory())


def test_an_entry_that_a_pull_only_reserved_is_no_request() -> None:
    owner = ledger_in_memory()
    owner.start_pulled(1)
    assert not owner.in_use()
    assert classify(owner) == classify(ledger_in_memory())


@pytest.mark.parametrize("state", list(State)[1:])
@pytest.mark.parametrize(("deadline", "late"), [(0, False), (9, True), (10, True), (11, False)])
def test_what_is_past_its_deadline_and_unanswered_is_overdue(state: State, deadline: int, late: bool) -> None:
    owner = ledger_in_memory()
    index = put(owner, state, deadline)
    # ANSWERED too: its reply has not left, and its owner cannot send it
    assert [e.index for e in overdue(owner, 10)] == ([index] if late else [])
    owner.revoke(index, owner.state(index)[0])
    assert not overdue(owner, 10)


@pytest.mark.parametrize(("lent_until", "due"), [(0, 250_000_001), (7, 7)])
def test_a_refusal_that_has_not_left_is_overdue_early_and_one_that_has_is_not(lent_until: int, due: int) -> None:
    owner = ledger_in_memory()
    index = put(owner, State.RECEIVED, lent_until)
    owner.refuse(index, b"R")
    assert not overdue(owner, due - 1)
    (entry,) = overdue(owner, due)
    assert (entry.index, entry.reply, entry.refused) == (index, b"R", True)
    owner.sent([index])
    assert not overdue(owner, due)
    owner.recall([index])
    assert overdue(owner, due)


def test_the_earliest_deadline_is_that_of_what_runs() -> None:
    owner = ledger_in_memory()
    assert earliest_deadline(owner, 0) is None
    put(owner, State.QUEUED, 1)
    put(owner, State.ANSWERED, 2)
    assert earliest_deadline(owner, 0) is None
    put(owner, State.STARTED, 9)
    put(owner, State.STARTED, 5)
    assert earliest_deadline(owner, 0) == 5


def test_a_deadline_that_no_request_has_is_passed_over() -> None:
    owner = ledger_in_memory()
    now = 1_000
    for deadline in (1 << 62, (1 << 64) - 1, now + LONGEST_NS + 1):
        put(owner, State.STARTED)
        owner.set_deadline(owner.touched()[-1], deadline)
    assert earliest_deadline(owner, now) is None
    put(owner, State.STARTED, now + LONGEST_NS)
    assert earliest_deadline(owner, now) == now + LONGEST_NS


EVERY_FACT = [Fact(number) for number in range(1 << len(Fact))]
WAITING = (State.RECEIVED, State.QUEUED)
BEGUN = (State.STARTED, State.ANSWERED, State.SENT, State.DAMAGED)


def entry_of(state: State, *, revoked: bool = False, claimed: bool = False) -> Entry:
    return Entry(0, 7, state, revoked, claimed, 0, 0, 1, 2, 3, None, b"r", "", "", 0, 1)


@pytest.mark.parametrize("facts", EVERY_FACT, ids=str)
def test_whatever_is_known_nothing_that_may_have_started_runs_twice_and_nothing_that_waits_is_given_up(
    facts: Fact,
) -> None:
    for state in BEGUN:
        assert disposition(entry_of(state), facts) is not Disposition.REQUEUE
    for state in WAITING:
        assert disposition(entry_of(state), facts) in (Disposition.REQUEUE, Disposition.LEAVE)
        assert disposition(entry_of(state, claimed=True), facts) is Disposition.LEAVE
        assert disposition(entry_of(state, revoked=True), facts) is Disposition.LEAVE
    if Fact.OWNER_STOPPED in facts:
        assert {disposition(entry_of(state), facts) for state in BEGUN} == {Disposition.LEAVE}
    else:
        assert Disposition.LEAVE not in {disposition(entry_of(state), facts) for state in BEGUN}


def test_every_state_that_is_stored_has_a_disposition_for_every_fact() -> None:
    assert set(DISPOSITION) == set(State) - {State.RESERVED}
    for rows in DISPOSITION.values():
        assert rows[-1][0] is USUALLY
        assert len({fact for fact, _ in rows}) == len(rows)
