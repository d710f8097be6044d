"""Takeover: what a process that died or hangs had not started runs elsewhere; what it had started is answered for.

The order of every step is what makes a kill between any two of them harmless: a request is in the desk's ledger
before it leaves its old place, and its token goes out only after that. `docs/architecture.md`, "Takeover".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable

from ajhost.adapters import tcp
from ajhost.core.chunk import READ_SIZE, Chunk
from ajhost.core.estate import take_stock
from ajhost.core.layout import LedgerError, State, Word
from ajhost.core.ledger import Entry, Ledger
from ajhost.core.token import SIZE, Claim, claim, unpack
from ajhost.protocol.frames import FrameError, message_line, reply_of, scan
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.roles.shared_queue.maps import Maps
from ajhost.roles.supervisor.desk import Desk

_log = logging.getLogger("ajhost.supervisor")
READ_PATIENCE = 2.0
"""Seconds to wait for the server to flush and close an inherited connection (1 to 3 ms on loopback)."""


def answer_started(
    ledger: Ledger,
    desk: Desk,
    verdict: Callable[[Entry], Outcome],
    maps: Maps,
    *,
    answers_lost: bool = False,
) -> int:
    """Answers everything that a dead process had started, and settles the origin of what it had pulled."""
    started = take_stock(ledger, answers_lost=answers_lost).started
    for entry in started:
        if entry.origin is not None:
            # it died between its own entry and the word that frees the other one
            serial, index, seq = entry.origin
            owner = maps.get(serial)
            if owner is not None and owner.state(index)[0] == seq:
                owner.take(index, seq)
        ledger.say(entry.index, entry.seq)
        desk.answer(entry.reply, verdict(entry))
    return len(started)


def answer_for(ledger: Ledger, entry: Entry, desk: Desk, text: str) -> None:
    """Answers for an owner that cannot: hanging, or dead and the request still in the shared queue."""
    waits = entry.state in (State.RECEIVED, State.QUEUED)
    reply = reply_of(ledger.frame(entry.index)) if waits else entry.reply
    ledger.say(entry.index, entry.seq)
    desk.answer(reply, Failed(text))


def return_token(ledger: Ledger, desk: Desk, maps: Maps) -> None:
    """Sends the token again that a dead process had received and not used."""
    token = unpack(ledger.view[Word.TOKEN * 8 : Word.TOKEN * 8 + SIZE])
    owner = maps.get(token.serial) if token.serial else None
    if owner is not None and claim(token, owner) is not Claim.STALE:
        desk.resend(token, owner.frame(token.entry))


async def move_waiting(
    ledger: Ledger,
    sock: socket.socket | None,
    desk: Desk,
    *,
    tokens_lost: bool = False,
    known: Iterable[bytes] = (),
) -> int:
    """Moves everything that had not started to the desk, from ledger, chunk and kernel, and lends it.

    The process is dead or stopped. `sock` is the duplicate of its connection, if it has one that was not taken over
    yet; it is read to its end and closed. `tokens_lost`: the shared queue of its time is gone, so what was QUEUED moves
    too. `known`: reply subjects that somebody has already (a supervisor died in the middle of this).
    """
    moved, seen, places = 0, set(known), set[int]()
    stolen = ledger.words[Word.STOLEN] == ledger.words[Word.EPOCH] != 0
    for entry in take_stock(ledger, tokens_lost=tokens_lost).waiting:
        if stolen and ledger.chunk_at <= entry.at < ledger.chunk_at + ledger.chunk_size:
            # made after its connection was taken over, with this request in it
            ledger.say(entry.index, entry.seq)
            continue
        frame = ledger.frame(entry.index)
        places.add(entry.at)
        copy = None if reply_of(frame) in seen else desk.copy(frame)
        ledger.say(entry.index, entry.seq)
        if copy is not None:
            desk.lend(copy)
            moved += 1
    words = ledger.words
    epoch = words[Word.EPOCH]
    if epoch and words[Word.STOLEN] != epoch:
        try:
            moved += await _move_stream(ledger, sock, desk, places, seen)
        except (LedgerError, FrameError) as error:
            _log.error("worker slot %d: its connection cannot be taken over: %s", ledger.slot, error)
        # of the connection that was taken over: somebody else may have let the process go on, and it may have another
        words[Word.STOLEN] = epoch
    if sock is not None:
        sock.close()
    return moved


async def _move_stream(
    ledger: Ledger, sock: socket.socket | None, desk: Desk, places: set[int], seen: set[bytes]
) -> int:
    loop, chunk, moved, needed = asyncio.get_running_loop(), Chunk(ledger), 0, 0
    skip, epoch = 0, ledger.words[Word.EPOCH]
    sealed = bool(ledger.words[Word.SEALED])
    chunk.resume(tcp.bytes_taken(sock) if sock is not None and not sealed else 0)
    if sock is not None:
        sock.setblocking(False)
        tcp.end_sending(sock)
    with contextlib.suppress(OSError, TimeoutError):  # a broken connection has no more to give
        async with asyncio.timeout(READ_PATIENCE):
            while True:
                found = scan(chunk.unparsed())
                copies = []
                for begin, _, _, end, _, reply in found.messages:
                    place = chunk.place() + begin
                    if reply and place not in places and reply not in seen:
                        copies.append(desk.copy(bytes(ledger.view[place : place + end - begin])))
                chunk.advance(found.end)
                places.clear()  # entries lie in what was in the chunk at the first look
                for copy in copies:
                    if copy is not None:
                        desk.lend(copy)
                        moved += 1
                needed = found.needed
                if needed > chunk.size - READ_SIZE:
                    # a server whose max_payload grew: no ledger here holds it, so it is answered, and passed over
                    skip, needed = _pass_over(chunk, desk), 0
                if sock is None or sealed:
                    break
                count = await loop.sock_recv_into(sock, chunk.space(needed))
                if not count or ledger.words[Word.EPOCH] != epoch:
                    break
                chunk.take(count)
                if skip:
                    passed = min(skip, count)
                    chunk.advance(passed)
                    skip -= passed
    return moved


def _pass_over(chunk: Chunk, desk: Desk) -> int:
    """Answers a frame that is larger than any chunk by its first line; bytes of it that are still to come."""
    head = chunk.unparsed()
    line = message_line(head)
    chunk.advance(len(head))
    if line is None:
        return 0
    _, reply, size = line
    desk.answer(reply, Failed(f"bad request: {size} bytes are more than this host can hold"))
    return size - len(head)
