"""A frame larger than any chunk: refused once, and never taken for others, whoever reads the rest of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ajhost.adapters.ledger_file import MappedLedger, OwnedLedger
from ajhost.core.chunk import READ_SIZE, Chunk
from ajhost.protocol.outcome import Failed
from ajhost.roles.supervisor.takeover import answer_started, move_waiting
from tests.support.house import GEOMETRY, SUBJECT, House, frame, house
from tests.support.peer import Peer

INSIDE = b"\r\n" + frame(b"R.inside")
BODY = b"x" * 100 + INSIDE * ((GEOMETRY.chunk + READ_SIZE) // len(INSIDE))
BIG = b"MSG %b 1 R.big %d\r\n%b\r\n" % (SUBJECT.encode(), len(BODY), BODY)
LINE = BIG.index(b"\r\n") + 2


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


@pytest.mark.parametrize("step", ["entered", "passed over", "refused"])
async def test_it_is_refused_once_wherever_its_worker_is_killed(home: House, step: str) -> None:
    serial = home.new_serial()
    owner = OwnedLedger(home.directory, serial)
    chunk = Chunk(owner)
    chunk.reset()
    ledger = MappedLedger(home.directory, serial)
    with Peer() as peer:
        await peer.fill(BIG[: LINE + 100])
        chunk.take(peer.theirs.recv_into(chunk.space(0)))
        index = owner.receive(chunk.place(), LINE + 100, 1)
        if step != "entered":
            chunk.advance(len(BIG))
        if step == "refused":
            owner.refuse(index, b"R.big")  # and the kernel did not take it
        answer_started(ledger, home.desk, lambda entry: Failed("worker died: here"), home.maps)
        moving = asyncio.create_task(move_waiting(ledger, peer.theirs, home.desk))
        await peer.ended()
        await peer.fill(BIG[LINE + 100 :] + frame(b"R.1"))
        peer.close()
        await moving
    await home.settle()
    assert home.ran == [b"R.1"]
    assert home.answers.keys() == {b"R.big"}
    assert len(home.answers[b"R.big"]) == 1
