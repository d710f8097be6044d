"""What leaves through a connection, on real sockets: nothing that was answered is lost with a server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from ajhost.adapters.nats.interfaces import Sink
from ajhost.adapters.nats.reply_writer import PING, ReplyWriter
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import Geometry, Identity, State, create
from ajhost.ledger.writer import LedgerWriter
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated

HEADED = b"HPUB c 30 30\r\nNATS/1.0\r\nAJ-Terminate: x\r\n\r\n\r\n"
GEOMETRY = Geometry(entries=256, chunk=8192, store=4096)
A, B = b"PUB a 0\r\n\r\n", b"PUB b 0\r\n\r\n"


class Wire(Sink):
    """A writer, its server's end, and its ledger."""

    def __init__(self) -> None:
        self.server, self._client = socket.socketpair()
        self.server.setblocking(False)
        self._client.setblocking(False)
        buffer = memoryview(bytearray(GEOMETRY.size))
        create(buffer, GEOMETRY, Identity(1, 0, 0))
        self.ledger = LedgerWriter(buffer)
        self.flow = ReplyWriter(self.ledger, RestartWindow(self.ledger), self, self)
        self.taken_back: list[tuple[int, type[Outcome], Failed | Terminated]] = []
        self.told: list[bytes] = []
        """What the server had each time that replies were about to leave."""

    def before_send(self) -> None:
        """Looks."""
        self.told.append(self.got())

    def write_failed(self, error: OSError) -> bool:
        """Nothing breaks here."""
        raise AssertionError(str(error))

    def release(self, entries: list[int]) -> None:
        """Gives up the entries."""
        for index in entries:
            self.ledger.release(index)

    def reply_replaced(self, index: int, before: type[Outcome], outcome: Failed | Terminated) -> None:
        """Notes it."""
        self.taken_back.append((index, before, outcome))

    def connect(self, *, moved: bool) -> None:
        """A connection that the server has accepted; what was on its way to an earlier server is gone."""
        self.flow.detach()
        self.got()
        self.flow.attach(self._client)
        self.flow.reconnected(moved)

    def answer(self, reply: bytes) -> int:
        """An entry whose reply is queued."""
        index = self.ledger.start_pulled(1)
        self.ledger.start(index, 1, reply.split()[1], b"i", b"t", 0, 1)
        self.ledger.answer(index)
        self.flow.reply(index, reply)
        return index

    def state(self, index: int) -> State:
        """Where an entry stands."""
        return State(self.ledger.state(index)[1])

    def got(self) -> bytes:
        """What the server reads now."""
        try:
            return self.server.recv(1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Closes both ends."""
        self.flow.detach()
        self.server.close()
        self._client.close()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A connected writer."""
    made = Wire()
    made.connect(moved=False)
    made.flow.flush()
    yield made
    made.close()


async def test_replies_leave_at_the_end_of_the_turn(wire: Wire) -> None:
    indexes = [wire.answer(A), wire.answer(B)]
    assert wire.got() == b""
    await asyncio.sleep(0)
    assert wire.got() == A + B
    assert [wire.state(index) for index in indexes] == [State.SENT] * 2


async def test_that_replies_leave_is_told_before_each_time_and_not_for_operations(wire: Wire) -> None:
    wire.flow.command(PING)
    await asyncio.sleep(0)
    assert (wire.got(), wire.told) == (PING, [])
    for reply in (A, B):
        wire.answer(reply)
        await asyncio.sleep(0)
        assert wire.got() == reply
    assert wire.told == [b"", b""]


async def test_what_is_queued_at_once_leaves_without_a_turn_whatever_happens_to_the_rest(wire: Wire) -> None:
    indexes = []

    def work() -> None:
        indexes.extend([wire.answer(A), wire.answer(B)])
        raise LookupError

    with pytest.raises(LookupError):
        wire.flow.flush_after(work)
    assert wire.got() == A + B
    assert [wire.state(index) for index in indexes] == [State.SENT] * 2
    wire.answer(A)
    await asyncio.sleep(0)
    assert wire.got() == A, "the next turn's replies leave at its end again"


@pytest.mark.parametrize("moved", [False, True])
async def test_what_no_pong_confirmed_goes_out_again_on_the_next_connection(wire: Wire, moved: bool) -> None:
    index = wire.answer(A)
    wire.flow.flush()
    assert wire.state(index) is State.SENT
    wire.flow.detach()
    assert wire.state(index) is State.ANSWERED, "nobody knows whether the server has read it"
    wire.connect(moved=moved)
    wire.flow.flush()
    assert wire.got() == A
    assert wire.state(index) is (State.ANSWERED if moved else State.SENT)


async def test_past_a_servers_restart_an_heir_must_answer_again_until_requesters_are_back(wire: Wire) -> None:
    wire.connect(moved=True)
    index = _answered_and_confirmed(wire, A)
    assert not wire.flow.retransmit.unconfirmed
    assert (wire.state(index), wire.flow.retransmit.held) == (State.ANSWERED, 1)
    wire.flow.release_held()
    assert (wire.state(index), wire.flow.retransmit.held) == (State.FREE, 0)


async def test_what_is_held_for_requesters_leaves_half_of_the_entries_free(wire: Wire) -> None:
    wire.connect(moved=True)
    held = []
    for _ in range(GEOMETRY.entries):
        _answered_and_confirmed(wire, A)
        held.append(wire.flow.retransmit.held)
    half = GEOMETRY.entries // 2
    assert held == [*range(1, half + 1), 0, *range(1, half)]


async def test_what_a_pong_confirmed_stays_with_the_same_server(wire: Wire) -> None:
    _confirm(wire, A)
    wire.connect(moved=False)
    wire.flow.flush()
    assert wire.got() == b""


async def test_a_server_that_was_killed_may_not_have_passed_on_even_what_it_confirmed(wire: Wire) -> None:
    _confirm(wire, A)
    assert not wire.flow.retransmit.unconfirmed
    wire.connect(moved=True)
    wire.flow.flush()
    assert wire.got() == A
    assert wire.flow.retransmit.unconfirmed


async def test_a_pong_confirms_only_what_was_sent_before_its_ping(wire: Wire) -> None:
    first = wire.answer(A)
    wire.flow.flush()
    wire.flow.confirm()
    wire.flow.flush()
    assert wire.got() == A + PING
    second = wire.answer(B)
    wire.flow.flush()
    wire.flow.pong()
    assert wire.flow.retransmit.unconfirmed
    assert (wire.state(first), wire.state(second)) == (State.FREE, State.SENT)
    wire.connect(moved=False)
    wire.flow.flush()
    assert wire.got() == B


async def test_a_pong_that_somebody_awaits_confirms_nothing(wire: Wire) -> None:
    wire.answer(A)
    wire.flow.flush()
    asked = asyncio.create_task(wire.flow.round_trip())
    await asyncio.sleep(0)
    wire.flow.pong()
    assert await asked
    assert wire.flow.retransmit.unconfirmed


async def test_who_awaits_a_pong_learns_that_the_connection_ended(wire: Wire) -> None:
    asked = asyncio.create_task(wire.flow.round_trip())
    await asyncio.sleep(0)
    wire.flow.detach()
    assert not await asked
    assert not await wire.flow.round_trip()


async def test_the_server_is_asked_at_once_when_many_entries_wait_for_its_word(wire: Wire) -> None:
    for _ in range(200):
        wire.answer(A)
    wire.flow.flush()
    assert wire.got() == A * 200 + PING
    wire.flow.pong()
    assert not wire.ledger.held


async def test_what_the_kernel_does_not_take_is_not_sent(wire: Wire) -> None:
    big = b"PUB a 1000000\r\n" + b"x" * 1_000_000 + b"\r\n"
    index = wire.answer(big)
    wire.flow.flush()
    assert wire.state(index) is State.ANSWERED
    taken = b""
    while len(taken) < len(big):
        await asyncio.sleep(0)
        taken += wire.got()
    assert taken == big
    assert wire.state(index) is State.SENT


async def test_while_no_entry_is_free_the_kernels_word_is_enough(wire: Wire) -> None:
    first = wire.answer(A)
    wire.flow.flush()
    second = wire.answer(B)
    wire.flow.release_unconfirmed(True)
    assert (wire.state(first), wire.state(second)) == (State.FREE, State.ANSWERED)
    wire.flow.flush()
    assert wire.state(second) is State.FREE
    wire.flow.release_unconfirmed(False)
    third = wire.answer(B)
    wire.flow.flush()
    assert wire.state(third) is State.SENT
    wire.connect(moved=False)
    wire.flow.flush()
    assert wire.got() == A + B + B, "the replies themselves are kept"


def _confirm(wire: Wire, reply: bytes) -> None:
    assert wire.state(_answered_and_confirmed(wire, reply)) is State.FREE


def _answered_and_confirmed(wire: Wire, reply: bytes) -> int:
    index = wire.answer(reply)
    wire.flow.flush()
    wire.flow.confirm()
    wire.flow.flush()
    assert wire.got() == reply + PING
    wire.flow.pong()
    return index


async def test_replies_that_cannot_leave_are_bounded_by_bytes(wire: Wire) -> None:
    assert not wire.flow.is_flooded()
    wire.flow.detach()
    big = b"PUB a 1000000\r\n" + b"x" * 1_000_000 + b"\r\n"
    for _ in range(40):
        wire.answer(big)
    assert wire.flow.is_flooded()


async def test_a_reply_that_the_server_refuses_is_taken_back_once_and_its_neighbours_stay(wire: Wire) -> None:
    first, second, third = wire.answer(A), wire.answer(B), wire.answer(HEADED)
    wire.flow.flush()
    wire.flow.refused(b"b", "no permission")
    wire.flow.refused(b"b", "no permission")
    wire.flow.refused(b"c", "no permission")
    wire.flow.refused(b"R.9", "no permission")
    refused = Failed("reply refused: no permission")
    assert wire.taken_back == [(second, Completed, refused), (third, Terminated, refused)]
    assert [wire.state(index) for index in (first, second, third)] == [State.SENT, State.FREE, State.FREE]
    wire.flow.confirm()
    wire.flow.flush()
    wire.flow.pong()
    wire.flow.refused(b"a", "no permission")
    assert len(wire.taken_back) == 2, "the server has confirmed it"


async def test_a_reply_that_is_too_large_for_the_next_server_is_taken_back(wire: Wire) -> None:
    wire.flow.set_limits(1 << 20, 1 << 20)
    large = b"PUB R.8 4000\r\n%b\r\n" % bytes(4000)
    indexes = [wire.answer(A), wire.answer(large)]
    wire.flow.flush()
    wire.flow.set_limits(2048, 2048)
    wire.connect(moved=False)
    wire.flow.flush()
    [(index, before, outcome)] = wire.taken_back
    assert (index, before, type(outcome)) == (indexes[1], Completed, Terminated)
    assert b"AJ-Terminate: result too large" in wire.got()


async def test_one_pong_answers_all_pings_that_came_before_it_left(wire: Wire) -> None:
    wire.connect(moved=False)
    for _ in range(10_000):
        wire.flow.answer_ping()
    wire.flow.flush()
    assert wire.got() == b"PONG\r\n"
    wire.flow.answer_ping()
    wire.flow.flush()
    assert wire.got() == b"PONG\r\n"
