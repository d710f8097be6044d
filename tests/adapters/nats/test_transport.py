"""What a connection brings lies where it may be found, and its end loses nothing, whoever finds out first."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

import pytest

from ajhost.adapters.nats.interfaces import Driver, Received, Sink
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import Lost
from ajhost.core.server_errors import error_text
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import Geometry, Identity, Word, create, geometry_for
from ajhost.ledger.writer import LedgerWriter
from tests.support.host_parts import frame
from tests.support.peer_socket import Peer, let_in
from tests.support.waiting import until

ENTRIES = 8
GEOMETRY = Geometry(ENTRIES, 1 << 18, 1 << 16)


class TransportHarness(Sink, Driver):
    """Keeps whatever comes, in its ledger as long as there is room."""

    def __init__(self) -> None:
        memory = memoryview(bytearray(GEOMETRY.size))
        create(memory, GEOMETRY, Identity(1, 0, 1))
        self.ledger = LedgerWriter(memory)
        self.transport = LedgerTransport(self.ledger, RestartWindow(self.ledger), self, self)
        self.ends: list[Lost] = []
        self.admitted: list[bytes] = []
        self.refused: list[bytes] = []

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        for index, message in requests:
            self.transport.in_buffer.add(Waiting(self, index, data[message[0] : message[3]]))
            self.admitted.append(message[5])

    def refuse(self, reply: bytes) -> None:
        self.refused.append(reply)

    def connection_ended(self, epoch: int, event: Lost) -> None:
        self.ends.append(event)

    def error_received(self, text: str) -> None:
        raise AssertionError(text)


class Waiting:
    """A request that does not begin. Its frame moves to the store when the receive buffer is overwritten."""

    def __init__(self, worker: TransportHarness, index: int, data: bytes) -> None:
        self._worker, self._index, self._data = worker, index, data

    def count_as_started(self) -> None:
        ledger = self._worker.ledger
        assert ledger.frame(self._index) == self._data, "it lies where it came until now"
        assert ledger.keep(self._index, self._data)
        self._worker.transport.in_buffer.remove(self)


async def connected(worker: TransportHarness, peer: Peer) -> None:
    """A connection that the server has accepted; it ends with the peer."""
    peer.ends_with(worker.transport.close)
    peer.send(b"PONG\r\n")
    await let_in(worker.transport, peer.theirs)


async def test_what_was_admitted_lies_in_the_chunk_until_that_is_overwritten() -> None:
    worker = TransportHarness()
    chunk = range(worker.ledger.chunk_at, worker.ledger.chunk_at + worker.ledger.chunk_size)
    with Peer() as peer:
        await connected(worker, peer)
        for number in range(3):
            peer.send(frame(b"R.%d" % number))
            await until(lambda: len(worker.admitted) > number)  # noqa: B023
            entries = list(worker.ledger.used())
            assert [entry.frame_at in chunk for entry in entries] == [False] * number + [True]
            assert [worker.ledger.frame(e.index) for e in entries] == [frame(b"R.%d" % n) for n in range(number + 1)]
        peer.close()


@pytest.mark.parametrize("requests", [1, ENTRIES, ENTRIES + 5, 500])
async def test_a_write_that_fails_first_leaves_nothing_unread(requests: int) -> None:
    worker = TransportHarness()
    replies = [b"R.%d" % number for number in range(requests)]
    with Peer() as peer:
        await connected(worker, peer)
        peer.send(b"".join(map(frame, replies)))
        peer.reset()
        worker.transport.out.publish(b"PUB x 0\r\n\r\n")
        await asyncio.sleep(0)  # the loop's turn ends with the write, before anything is read
        assert worker.ends
    assert worker.admitted == replies[:ENTRIES]
    assert worker.refused == replies[ENTRIES:]


async def test_what_was_taken_over_while_we_hung_is_not_refused_by_us() -> None:
    worker = TransportHarness()
    replies = [b"R.%d" % number for number in range(ENTRIES + 5)]
    with Peer() as peer:
        await connected(worker, peer)
        peer.send(b"".join(map(frame, replies)))
        await until(lambda: worker.admitted)
        words = worker.ledger.words
        # five wait in the chunk for a free entry: an heir has them
        words[Word.FENCED_EPOCH] = words[Word.EPOCH]
        peer.theirs.shutdown(socket.SHUT_WR)  # as the heir does, so that our next write fails
        worker.transport.out.publish(b"PUB x 0\r\n\r\n")
        await asyncio.sleep(0)
        assert worker.ends
    assert worker.admitted == replies[:ENTRIES]
    assert not worker.refused


async def test_a_frame_that_was_not_whole_is_nobodys() -> None:
    worker = TransportHarness()
    with Peer() as peer:
        await connected(worker, peer)
        peer.send(frame(b"R.0") + frame(b"R.1")[:-1])
        peer.reset()
        worker.transport.out.publish(b"PUB x 0\r\n\r\n")
        await asyncio.sleep(0)
        assert worker.ends
    assert worker.admitted == [b"R.0"]
    assert not worker.refused


@pytest.mark.parametrize("reset", [False, True])
async def test_an_end_that_the_loop_does_not_report_is_found_by_the_next_check(reset: bool) -> None:
    worker = TransportHarness()
    with Peer() as peer:
        await connected(worker, peer)
        worker.transport.repair_socket()
        asyncio.get_running_loop().remove_reader(peer.theirs)
        if reset:
            peer.reset()
        else:
            peer.close()
        await asyncio.sleep(0)
        assert not worker.ends
        worker.transport.repair_socket()
        assert worker.ends


async def test_nothing_is_read_while_too_many_replies_wait_to_leave() -> None:
    worker = TransportHarness()
    with Peer() as peer:
        await connected(worker, peer)
        for _ in range(40):
            worker.transport.out.publish(b"PUB a 1000000\r\n" + b"x" * 1_000_000 + b"\r\n")
        await asyncio.sleep(0)
        worker.transport.pause_or_resume()
        assert worker.ledger.words[Word.READING_PAUSED]
        peer.send(frame(b"R.0"))
        left = 40 * 1_000_017
        while left > 0:
            assert not worker.admitted
            left -= len(await peer.received(1))
        worker.transport.pause_or_resume()
        await until(lambda: worker.admitted)
        assert not worker.ledger.words[Word.READING_PAUSED]


def test_what_a_server_says_cannot_write_to_a_terminal() -> None:
    assert error_text(b"-ERR 'no \x1b[31mway\x07\xff'\r\n") == "no ?[31mway?\ufffd"
    assert len(error_text(b"-ERR '" + b"x" * 60_000 + b"'\r\n")) < 1000


async def test_the_server_learns_of_an_end_whoever_holds_the_connection_too() -> None:
    worker = TransportHarness()
    with Peer() as peer, socket.socket(fileno=os.dup(peer.theirs.fileno())):
        await connected(worker, peer)
        worker.transport.close()
        assert await peer.ended() == b""


async def test_a_connection_that_was_taken_over_is_left_to_whoever_reads_it() -> None:
    worker = TransportHarness()
    with Peer() as peer, socket.socket(fileno=os.dup(peer.theirs.fileno())) as heir:
        await connected(worker, peer)
        words = worker.ledger.words
        words[Word.FENCED_EPOCH] = words[Word.EPOCH]
        worker.transport.close()
        heir.sendall(b"PING\r\n")
        assert await peer.received(6) == b"PING\r\n"


class _Full(LedgerWriter):
    """A ledger whose file system has no more room."""

    def set_aside(self, offset: int, size: int) -> bool:
        return False


async def test_a_large_request_for_which_there_is_no_memory_is_refused_and_the_next_one_served() -> None:
    worker = TransportHarness()
    geometry = geometry_for(16, 8 << 20)
    memory = memoryview(bytearray(geometry.size))
    create(memory, geometry, Identity(1, 0, 1))
    worker.ledger = _Full(memory)
    worker.transport = LedgerTransport(worker.ledger, RestartWindow(worker.ledger), worker, worker)
    missing: list[int] = []
    admit = worker.admit

    def noting(data: bytes, requests: Sequence[Received]) -> None:
        missing.extend(message[3] - len(data) for _, message in requests)
        admit(data, requests)

    worker.admit = noting  # type: ignore[method-assign]
    with Peer() as peer:
        await connected(worker, peer)
        await peer.fill(frame(b"R.big", padding=6 << 20) + frame(b"R.1"))
        await until(lambda: len(worker.admitted) == 2)
        assert worker.admitted == [b"R.big", b"R.1"]
        assert missing[0] > 5 << 20, "it is refused by its first line"
        peer.close()
