"""The tables of states: every step that they have can be made, and every other one raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ajhost.core import fleet
from ajhost.core.connection_table import IllegalTransition
from ajhost.core.fleet import (
    Died,
    Event,
    Fleet,
    HangEnded,
    Hung,
    Leave,
    Ready,
    Scale,
    WorkerState,
)
from ajhost.ledger import layout
from ajhost.ledger.connection_status import ConnectionState
from ajhost.ledger.layout import ENTRY, HEADER, HeaderWord, State, Word
from ajhost.ledger.states import TRANSITIONS, Writer
from ajhost.ledger.view import Ledger
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.outcome import Failed
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.worker import request
from ajhost.roles.worker.request import TRANSITIONS as TRANSITIONS_OF_REQUESTS
from ajhost.roles.worker.request import Attempt, Phase
from scripts.lib.doc_tables import DIAGRAMS, PACKAGE, meanings, mermaid
from tests.support.checked_ledger import MAKES, IllegalStep, stands
from tests.support.checked_request import MAY_DECLINE, IllegalPhase
from tests.support.memory_ledger import ledger_in_memory

NEVER_STORED = (State.RESERVED, State.DAMAGED)

EVENTS: dict[str, Callable[[LedgerWriter, int], object]] = {
    "queue": lambda owner, index: owner.queue(index, owner.state(index)[0]),
    "start": lambda owner, index: owner.start(index, 1, b"r", b"i", b"t", 0, 1),
    "answer": lambda owner, index: owner.answer(index),
    "take_back": lambda owner, index: owner.take_back(index, owner.state(index)[0]),
    "refuse": lambda owner, index: owner.refuse(index, b"r"),
    "sent": lambda owner, index: owner.sent([index]),
    "recall": lambda owner, index: owner.recall([index]),
    "release_all": lambda owner, index: owner.release_all([index]),
    "free_entry": lambda owner, index: owner.free_entry(index),
}
WAY: dict[State, tuple[str, ...]] = {
    State.RECEIVED: (),
    State.QUEUED: ("queue",),
    State.STARTED: ("start",),
    State.ANSWERED: ("start", "answer"),
    State.SENT: ("start", "answer", "sent"),
    State.RESERVED: (),
    State.FREE: ("release_all",),
}
"""How an entry comes to a state, after `receive` (RESERVED: after `start_pulled`)."""


def entry_in(state: State) -> tuple[LedgerWriter, int]:
    owner = ledger_in_memory()
    index = owner.start_pulled(1) if state is State.RESERVED else owner.receive(4096, 10, 1)
    for event in WAY[state]:
        EVENTS[event](owner, index)
    assert stands(owner, index) is state
    return owner, index


def test_every_event_is_tried_or_makes_its_entry() -> None:
    assert TRANSITIONS.keys() == EVENTS.keys() | MAKES


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("event", EVENTS)
def test_an_entry_goes_where_the_table_says_and_nowhere_else(event: str, state: State) -> None:
    owner, index = entry_in(state)
    row = TRANSITIONS[event]
    if state in row.sources:
        EVENTS[event](owner, index)
        assert stands(owner, index) is row.target
    else:
        with pytest.raises(IllegalStep, match=f"{event} in state {state.name}"):
            EVENTS[event](owner, index)


def test_a_free_entry_becomes_a_request_or_is_reserved() -> None:
    owner = ledger_in_memory()
    assert stands(owner, owner.receive(4096, 10, 1)) is State.RECEIVED is TRANSITIONS["receive_all"].target
    assert stands(owner, owner.start_pulled(1)) is State.RESERVED is TRANSITIONS["start_pulled"].target


def test_every_state_of_an_entry_is_reached_and_left() -> None:
    reached = {row.target for row in TRANSITIONS.values()}
    left = {state for row in TRANSITIONS.values() for state in row.sources}
    assert reached == left - {State.DAMAGED} == set(State) - {State.DAMAGED}


def test_events_of_the_owner_are_the_writers_and_those_of_others_are_the_views() -> None:
    for row in TRANSITIONS.values():
        assert (row.event in vars(LedgerWriter)) is (row.writer is Writer.OWNER), row.event
        assert (row.event in vars(Ledger)) is (row.writer is not Writer.OWNER), row.event


def test_states_that_are_never_stored_are_read_from_nothing_that_is() -> None:
    owner = ledger_in_memory()
    index = owner.receive(4096, 10, 1)
    for number in (*NEVER_STORED, 6, 200):
        owner.words[layout.FIRST + index * layout.ENTRY_WORDS] = 1 << 8 | number
        assert owner.entry(index).state is State.DAMAGED


# -- words --------------------------------------------------------------------------------------------


def test_every_word_of_the_header_is_a_row_that_says_who_writes_it_and_what_it_means() -> None:
    plain = [name for name, value in vars(Word).items() if name.isupper() and not isinstance(value, HeaderWord)]
    assert plain == [], "HeaderWord(number, writer, meaning) in ledger/layout.py"
    assert [name for name, word in HEADER.items() if not word.meaning.endswith(".")] == []


def test_no_two_words_of_the_header_share_a_place() -> None:
    places = [int(word) for word in HEADER.values()]
    places += range(Word.TOKENS + 1, Word.TOKENS + 4 * layout.TOKEN_PLACES)
    places += range(Word.LOGIN_GATE + 1, Word.LOGIN_GATE + 5)
    for text in (layout.SERVER_TEXT_AT, layout.REASON_TEXT_AT):
        places += range(text // 8, (text + layout.CONNECTION_TEXT) // 8)
    assert len(places) == len(set(places))
    assert max(places) < layout.HEADER_SIZE // 8


def test_every_word_of_an_entry_has_its_row_at_its_place() -> None:
    numbers = {name: getattr(layout, name) for name in ENTRY if name != "STATE"}
    assert {"STATE": 0} | numbers == {name: number for number, name in enumerate(ENTRY)}
    assert len(ENTRY) * 8 <= layout.TEXT


# -- a worker -----------------------------------------------------------------------------------------

REPORTS: tuple[type[Ready | Hung | HangEnded], ...] = (Ready, Hung, HangEnded)
LIFE: dict[WorkerState, tuple[type[Event], ...]] = {
    WorkerState.STARTING: (),
    WorkerState.SERVING: (Ready,),
    WorkerState.DRAINED: (Ready, fleet.Left),
    WorkerState.HUNG: (Ready, Hung),
    WorkerState.LEAVING: (Ready, fleet.Stop),
}


def worker_in(state: WorkerState) -> Fleet:
    host = Fleet(1)
    host.handle(Scale(1, 1), 0.0)
    for event in LIFE[state]:
        host.handle(fleet.Stop() if event is fleet.Stop else event(1), 0.0)  # type: ignore[call-arg]
    assert host.members[1].state is state
    return host


@pytest.mark.parametrize("state", WorkerState)
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_moves_a_worker_as_the_table_says_or_not_at_all(
    report: type[Ready | Hung | HangEnded], state: WorkerState
) -> None:
    host = worker_in(state)
    host.handle(report(1), 0.0)
    assert host.members[1].state is (fleet.TRANSITIONS.get((state, report)) or state)


@pytest.mark.parametrize("state", WorkerState)
def test_a_worker_that_died_is_gone_whatever_it_was(state: WorkerState) -> None:
    host = worker_in(state)
    host.handle(Died(1), 0.0)
    assert 1 not in host.members
    assert fleet.TRANSITIONS[state, Died] is None


def test_a_worker_is_told_to_leave_once() -> None:
    host = worker_in(WorkerState.LEAVING)
    with pytest.raises(IllegalTransition, match="Leave in the state LEAVING"):
        host._tell_to_leave(host.members[1])
    assert (WorkerState.LEAVING, Leave) not in fleet.TRANSITIONS


# -- what the pages are made of -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [("ledger/states.py", "State"), ("ledger/layout.py", "Phase"), ("core/fleet.py", "WorkerState")],
)
def test_every_state_says_what_it_means(module: str, name: str) -> None:
    said = meanings((PACKAGE / module).read_text(), name)
    assert said
    assert [state for state, text in said.items() if not text] == []


def test_a_diagram_has_an_arrow_for_each_pair_of_states() -> None:
    assert mermaid([("A", "x", "B"), ("A", "y", "B"), ("B", "z", "[*]")]) == (
        "stateDiagram-v2\n    A --> B: x, y\n    B --> [*]: z\n"
    )


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("entry-states", {state.name for state in State} - {"DAMAGED"}),
        ("request-phases", {phase.name for phase in request.Phase}),
        ("worker-states", {state.name for state in WorkerState}),
        ("connection-states", {state.name for state in ConnectionState}),
    ],
)
def test_a_diagram_shows_every_state_of_its_table(name: str, states: set[str]) -> None:
    lines = DIAGRAMS[name]().splitlines()[1:]
    assert {word for line in lines for word in line.split(":")[0].split() if word.isupper()} == states


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("event", TRANSITIONS_OF_REQUESTS)
def test_a_request_goes_where_the_table_says_and_nowhere_else(event: str, phase: Phase) -> None:
    attempt = Attempt.__new__(Attempt)
    handler = LoadedHandler("t", "m:f", print, False)
    attempt.handler, attempt.phase = handler, phase
    sources, target = TRANSITIONS_OF_REQUESTS[event]
    step = getattr(attempt, event)
    arguments = [Failed("no")] if event == "answer" else []
    if phase in sources:
        step(*arguments)
        assert attempt.phase is target
    elif event in MAY_DECLINE:
        step(*arguments)
        assert attempt.phase is phase
    else:
        with pytest.raises(IllegalPhase, match=f"{event} of one that is {phase.name}"):
            step(*arguments)
