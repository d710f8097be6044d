"""What leaves through a connection, on real sockets: nothing that was answered is lost with a server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from ajhost.adapters.outflow import PING, Outflow

A, B = b"PUB a 0\r\n\r\n", b"PUB b 0\r\n\r\n"


@dataclass
class Wire:
    """An outflow, its server's end, and which entries it released."""

    server: socket.socket
    client: socket.socket
    released: list[int] = field(default_factory=list)
    flow: Outflow = field(init=False)

    def connect(self, *, moved: bool) -> None:
        """A connection that the server has accepted; what was on its way to an earlier server is gone."""
        self.flow.detach()
        self.got()
        self.flow.attach(self.client)
        self.flow.came_up(moved)

    def got(self) -> bytes:
        """What the server reads now."""
        try:
            return self.server.recv(1 << 20)
        except BlockingIOError:
            return b""


@pytest.fixture
async def wire() -> Wire:
    """A connected outflow."""
    server, client = socket.socketpair()
    server.setblocking(False)
    client.setblocking(False)
    made = Wire(server, client)
    made.flow = Outflow(made.released.extend, lambda error: pytest.fail(str(error)))
    made.connect(moved=False)
    made.flow.flush()
    return made


@pytest.fixture(autouse=True)
def _closed(wire: Wire) -> Iterator[None]:
    yield
    wire.flow.detach()
    wire.server.close()
    wire.client.close()


async def test_a_reply_leaves_at_the_end_of_the_turn_and_frees_its_entry(wire: Wire) -> None:
    wire.flow.reply(7, A)
    wire.flow.reply(8, B)
    assert wire.got() == b""
    await asyncio.sleep(0)
    assert wire.got() == A + B
    assert wire.released == [7, 8]


@pytest.mark.parametrize("moved", [False, True])
async def test_what_no_pong_confirmed_goes_out_again_on_the_next_connection(wire: Wire, moved: bool) -> None:
    wire.flow.reply(1, A)
    wire.flow.flush()
    wire.connect(moved=moved)
    wire.flow.flush()
    assert wire.got() == A
    assert wire.released == [1]


async def test_what_a_pong_confirmed_stays_with_the_same_server(wire: Wire) -> None:
    _confirm(wire, A)
    wire.connect(moved=False)
    wire.flow.flush()
    assert wire.got() == b""


async def test_a_server_that_was_killed_may_not_have_passed_on_even_what_it_confirmed(wire: Wire) -> None:
    _confirm(wire, A)
    assert not wire.flow.unconfirmed
    wire.connect(moved=True)
    wire.flow.flush()
    assert wire.got() == A
    assert wire.flow.unconfirmed


async def test_a_pong_confirms_only_what_was_sent_before_its_ping(wire: Wire) -> None:
    wire.flow.reply(1, A)
    wire.flow.flush()
    wire.flow.confirm()
    wire.flow.flush()
    assert wire.got() == A + PING
    wire.flow.reply(2, B)
    wire.flow.flush()
    assert wire.flow.pong()
    assert wire.flow.unconfirmed
    wire.connect(moved=False)
    wire.flow.flush()
    assert wire.got() == B


async def test_a_pong_that_nats_py_asked_for_is_not_ours(wire: Wire) -> None:
    wire.flow.command(PING)
    wire.flow.flush()
    assert not wire.flow.pong()


def _confirm(wire: Wire, reply: bytes) -> None:
    wire.flow.reply(1, reply)
    wire.flow.flush()
    wire.flow.confirm()
    wire.flow.flush()
    assert wire.got() == reply + PING
    assert wire.flow.pong()
