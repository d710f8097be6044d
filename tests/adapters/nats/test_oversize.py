"""A frame larger than any chunk: refused once, and never taken for others, whoever reads the rest of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence

import pytest

from ajhost.adapters.linux import processes
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.adapters.nats.interfaces import Driver, Received, Sink
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import Lost
from ajhost.core.server_restart import RestartWindow
from ajhost.ledger.layout import State, Word
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.protocol.frames import Message
from ajhost.protocol.outcome import Failed
from ajhost.protocol.reply_encoding import encode_reply
from ajhost.roles.supervisor.recovery.remains import Remains
from tests.support.host_parts import GEOMETRY, SUBJECT, HostParts, frame
from tests.support.peer_socket import Peer, let_in
from tests.support.waiting import until

INSIDE = b"\r\n" + frame(b"R.inside")
BODY = b"x" * 100 + INSIDE * ((GEOMETRY.chunk + READ_SIZE) // len(INSIDE))
BIG = b"MSG %b 1 R.big %d\r\n%b\r\n" % (SUBJECT.encode(), len(BODY), BODY)
LINE = BIG.index(b"\r\n") + 2
STREAM = frame(b"R.0") + BIG + frame(b"R.1")
AT = len(frame(b"R.0"))
REFUSAL = encode_reply(b"R.big", Failed("bad request: too large"), 1 << 20)


class Waits(Sink, Driver):
    """A worker that has no slot free: what can wait waits in its store."""

    def __init__(self, ledger: LockedLedger) -> None:
        self._ledger = ledger
        self.transport = LedgerTransport(ledger, RestartWindow(ledger), self, self)

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        for index, (begin, _, _, end, _, reply) in requests:
            if end > len(data):
                assert self._ledger.refuse(index, reply)
                self.transport.out.reply(index, REFUSAL)
            else:
                assert self._ledger.keep(index, data[begin:end])

    def refuse(self, reply: bytes) -> None:
        raise AssertionError("there is room")

    def message_without_reply(self, data: bytes, message: Message) -> None:
        raise AssertionError("every request is answered")

    def connection_ended(self, epoch: int, event: Lost) -> None:
        raise AssertionError(event.text)

    def error_received(self, text: str) -> None:
        raise AssertionError(text)


def worker(parts: HostParts, serial: int, sock: socket.socket) -> int:
    """A child that reads the connection until it is killed."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    try:
        processes.die_with_parent(parent)
        asyncio.run(_work(parts, serial, sock))
    finally:
        os._exit(1)


async def _work(parts: HostParts, serial: int, sock: socket.socket) -> None:
    transport = Waits(LockedLedger(parts.directory, serial)).transport
    await let_in(transport, sock)
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "cut",
    [
        AT + 5,
        AT + LINE - 1,
        AT + LINE,
        AT + LINE + 50,
        AT + READ_SIZE + 7,
        AT + len(BIG) // 2,
        AT + len(BIG) - 1,
        AT + len(BIG),
        AT + len(BIG) + 20,
        len(STREAM),
    ],
)
async def test_a_worker_killed_in_the_middle_of_a_frame_that_no_chunk_holds_leaves_the_rest_unread(
    parts: HostParts, cut: int
) -> None:
    serial = parts.new_serial()
    with Peer() as peer:
        pid = worker(parts, serial, peer.theirs)
        ledger = MappedLedger(parts.directory, serial)
        await peer.fill(b"PONG\r\n" + STREAM[:cut])
        await until(lambda: ledger.words[Word.RECEIVED_POS] == cut + 6)
        refused = cut >= AT + LINE  # as soon as its line is there
        if refused:
            assert REFUSAL in await peer.received(len(REFUSAL))
            # until it has noted that, it may be answered once more
            await until(lambda: all(entry.state is not State.ANSWERED for entry in ledger.used()))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        moving = asyncio.create_task(parts.recover(Remains(ledger, sock=peer.theirs)))
        assert await peer.ended() == b""
        await peer.fill(STREAM[cut:])
        peer.close()
        await moving
        ledger.close()
    await parts.settle()
    assert sorted(parts.ran) == [b"R.0", b"R.1"]
    assert parts.answers.keys() == (set() if refused else {b"R.big"})
    assert all(len(texts) == 1 and texts[0].startswith("bad request:") for texts in parts.answers.values())


@pytest.mark.parametrize("step", ["entered", "passed over", "refused"])
async def test_it_is_refused_once_wherever_its_worker_is_killed(parts: HostParts, step: str) -> None:
    serial = parts.new_serial()
    owner = LockedLedger(parts.directory, serial)
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    ledger = MappedLedger(parts.directory, serial)
    with Peer() as peer:
        await peer.fill(BIG[: LINE + 100])
        buffer.commit(peer.theirs.recv_into(buffer.free_space(0)))
        index = owner.receive(buffer.place(), LINE + 100, 1)
        if step != "entered":
            buffer.consume(len(BIG))
        if step == "refused":
            owner.refuse(index, b"R.big")  # and the kernel did not take it
        moving = asyncio.create_task(parts.recover(Remains(ledger, sock=peer.theirs)))
        await peer.ended()
        await peer.fill(BIG[LINE + 100 :] + frame(b"R.1"))
        peer.close()
        await moving
    await parts.settle()
    assert parts.ran == [b"R.1"]
    assert parts.answers.keys() == {b"R.big"}
    assert len(parts.answers[b"R.big"]) == 1
