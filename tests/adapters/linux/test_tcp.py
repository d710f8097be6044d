"""The kernel's count of what left a connection's receive queue, against real connections on loopback."""

from __future__ import annotations

import random
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from ajhost.adapters.linux import tcp

_LIMIT_MS = 10_000


class Pair:
    """A connection: `ours` is read, `peer` is the server."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.ours = socket.create_connection(listener.getsockname())
            self.peer, _ = listener.accept()
        tcp.tune(self.ours)
        tcp.tune(self.peer)
        self.sent = self.read = 0

    def send(self, size: int) -> None:
        """Sends and waits until all of it is in our receive queue."""
        self.peer.sendall(bytes(size))
        self.sent += size
        while tcp.unread(self.ours) < self.sent - self.read:
            self._wait(select.POLLIN)

    def take(self, size: int) -> None:
        self.read += len(self.ours.recv(size))

    def finish(self) -> None:
        """The peer's FIN, once it has come."""
        self.peer.shutdown(socket.SHUT_WR)
        self._wait(select.POLLRDHUP)

    def reset(self) -> None:
        """The peer's RST, once it has come."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        self._wait(select.POLLHUP)

    def close_peer(self) -> None:
        self.peer.close()
        self._wait(select.POLLRDHUP | select.POLLHUP)

    def _wait(self, events: int) -> None:
        poll = select.poll()
        poll.register(self.ours, events)
        assert poll.poll(_LIMIT_MS), "the peer's doing does not arrive"

    def close(self) -> None:
        self.ours.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_new_connection_has_given_nothing(pair: Pair) -> None:
    assert tcp.bytes_taken(pair.ours) == 0


def test_it_is_tuned(pair: Pair) -> None:
    assert pair.ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert pair.ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("end", ["open", "fin", "reset", "we ended"])
def test_the_count_is_exact_at_every_step(pair: Pair, seed: int, end: str) -> None:
    chance = random.Random(seed)
    for _ in range(25):
        if chance.random() < 0.5:
            pair.send(chance.choice([1, 7, 100, 4096, 20_000]))
        elif pair.sent > pair.read:
            pair.take(chance.choice([1, 3, 50, 5000, 1 << 20]))
        if chance.random() < 0.2 and pair.sent > pair.read:
            pair.ours.recv(10, socket.MSG_PEEK)
        assert tcp.bytes_taken(pair.ours) == pair.read
    match end:
        case "fin":
            pair.finish()
        case "reset":
            pair.reset()
        case "we ended":
            tcp.end_sending(pair.ours)
    if end == "reset":
        # the kernel tells its error once, and who inherits a connection asks once
        assert tcp.bytes_taken(pair.ours) == pair.read
        return
    while pair.read < pair.sent:
        assert tcp.bytes_taken(pair.ours) == pair.read
        pair.take(chance.randrange(1, 30_000))
    assert tcp.bytes_taken(pair.ours) == pair.read
    if end == "fin":
        assert pair.ours.recv(1) == b""
        assert tcp.bytes_taken(pair.ours) == pair.read, "reading the end takes no byte"


def test_the_count_is_exact_through_a_duplicate_while_the_first_reader_goes_on(pair: Pair) -> None:
    inherited = pair.ours.dup()
    with inherited:
        for size in (5, 1000, 70):
            pair.send(2000)
            pair.take(size)
            assert tcp.bytes_taken(inherited) == pair.read
        pair.ours.close()
        assert tcp.bytes_taken(inherited) == pair.read
        pair.ours = inherited.dup()


@pytest.mark.parametrize("end", ["both ended", "the peer ended, then reset"])
def test_the_count_is_exact_when_the_connection_is_over_with_data_unread(pair: Pair, end: str) -> None:
    pair.send(10)
    pair.take(4)
    if end == "both ended":
        tcp.end_sending(pair.ours)
        pair.close_peer()
    else:
        pair.finish()
        pair.reset()
    assert tcp.bytes_taken(pair.ours) == 4


def test_ending_twice_or_after_the_peer_is_gone_is_no_error(pair: Pair) -> None:
    tcp.end_sending(pair.ours)
    assert pair.peer.recv(1) == b""
    pair.reset()
    tcp.end_sending(pair.ours)
    tcp.end_sending(pair.ours)


def test_a_socket_that_takes_none_of_the_options_is_used_all_the_same() -> None:
    """As where a sandbox forbids setsockopt(2): the options only make a dead peer known sooner."""
    ours, peer = socket.socketpair()  # of the family UNIX, which knows no options of TCP
    with ours, peer:
        tcp.tune(ours)
        peer.sendall(b"x")
        assert ours.recv(1) == b"x"
