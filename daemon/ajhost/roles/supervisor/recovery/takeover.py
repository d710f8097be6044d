"""Takeover: what a process that died or hangs had not started runs elsewhere; what it had started is answered for.

The order of every step is what makes a kill between any two of them harmless: a request is in the standby's ledger
before it leaves its old place, and its token goes out only after that. `docs/architecture.md`, "Takeover".
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from ajhost.adapters.linux import tcp
from ajhost.core.recovery import USUALLY, Fact, classify
from ajhost.core.timings import DRAIN_LIMIT
from ajhost.ledger.layout import LedgerError, State, Word
from ajhost.ledger.queue_token import TokenState, check, token_places, unpack
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.frames import FrameError, reply_of, scan
from ajhost.protocol.outcome import Failed, Outcome
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.shared_queue.ledger_cache import LedgerCache
from ajhost.roles.supervisor.standby import Standby

_log = logging.getLogger("ajhost.supervisor")


def answer_started(
    ledger: Ledger,
    standby: Standby,
    verdict: Callable[[Entry], Outcome],
    ledgers: LedgerCache,
    facts: Fact = USUALLY,
    *,
    told: set[bytes] | None = None,
) -> int:
    """Answers everything that a dead process had started, and settles the origin of what it had pulled.

    Not what it had sent on a connection that is whole: see `confirm_sent`.
    `told`: reply subjects that are answered already, by what another ledger says; those answered here are added.
    """
    told, count = set() if told is None else told, 0
    for entry in classify(ledger, facts).answer:
        if not _claim_origin(entry, ledgers):
            ledger.revoke(entry.index, entry.seq)
            continue
        if entry.reply not in told:
            told.add(entry.reply)
            outcome = verdict(entry)
            standby.answer(entry.reply, outcome)
            standby.answered.begun(ledger, entry, outcome)
            count += 1
        ledger.revoke(entry.index, entry.seq)
    return count


def confirm_sent(ledger: Ledger, standby: Standby, *, read: bool) -> None:
    """Leaves what a dead process had sent to the server that has `read` it, and answers it otherwise."""
    for entry in classify(ledger).confirm:
        if not read and not entry.revoked:
            outcome = Failed.because(FailureReason.WORKER_DIED, "and with it the server that had its reply")
            standby.answer(entry.reply, outcome)
            standby.answered.begun(ledger, entry, outcome)
        ledger.revoke(entry.index, entry.seq)


def _claim_origin(entry: Entry, ledgers: LedgerCache) -> bool:
    """Makes sure that what was pulled and started is nobody else's; False when it is.

    Its consumer may have stood between its own entry and the word that frees the other one.
    """
    if entry.origin is not None:
        serial, index, seq = entry.origin
        owner = ledgers.get(serial)
        if (
            owner is not None
            and index < owner.entries
            and owner.state(index)[0] == seq
            and not owner.is_claimed(index, seq)
        ):
            if owner.is_revoked(index, seq):
                return False  # it was stopped there, and the request moved
            owner.claim(index, seq)
    return True


def answer_for(ledger: Ledger, entry: Entry, standby: Standby, text: str) -> None:
    """Answers for an owner that cannot: hanging, or dead and the request still in the shared queue."""
    reply, frame = entry.reply, b""
    if entry.state in (State.RECEIVED, State.QUEUED):
        frame = ledger.frame(entry.index)
        reply = reply_of(frame)
        if ledger.state(entry.index) != (entry.seq, entry.state):
            return  # it goes on after all, and what was read may be another frame
    standby.answer(reply, Failed(text))
    if frame:
        standby.answered.refused(frame, text)
    else:
        standby.answered.begun(ledger, entry, Failed(text))
    ledger.revoke(entry.index, entry.seq)


def requeue_tokens(ledger: Ledger, standby: Standby, ledgers: LedgerCache) -> int:
    """Moves the requests whose tokens a dead or stopped process had received and not used; how many that are.

    Moved rather than sent again: from then on it is in our ledger, and a token of which we cannot know whether somebody
    else has sent it again, before us, is stale.
    """
    count = 0
    for token in map(unpack, token_places(ledger)):
        owner = ledgers.get(token.serial) if token.serial else None
        if owner is None or check(token, owner) is TokenState.STALE:
            continue
        copy = standby.copy(owner.frame(token.entry))
        owner.revoke(token.entry, token.seq)
        if copy is not None:
            standby.enqueue(copy)
        count += 1
    return count


def requeue_claimed(ledger: Ledger, standby: Standby, ledgers: LedgerCache) -> int:
    """As `requeue_tokens`, of a stopped process, whose own started requests remain its own."""
    for entry in classify(ledger).answer:
        _claim_origin(entry, ledgers)
    return requeue_tokens(ledger, standby, ledgers)


@dataclass(slots=True)
class Moved:
    """What was moved: how many, the reply subjects that are known, and where in the file those entries lay.

    `rest`: the connection, when its server has not ended it in time and may have more for us. `broken`: the connection
    has not ended in order, or not because we did it: its server need not have read, or passed on, what was sent on it.
    """

    count: int = 0
    broken: bool = False
    rest: socket.socket | None = None
    seen: set[bytes] = field(default_factory=set)
    places: set[int] = field(default_factory=set)


def requeue_entries(
    ledger: Ledger, standby: Standby, facts: Fact = USUALLY, *, seen: Iterable[bytes] = ()
) -> Moved:
    """Moves everything that had not started and is in the ledger to the standby, and enqueues it; see
    `requeue_waiting`."""
    moved = Moved(seen=set(seen))
    taken_over = ledger.words[Word.EPOCH] and is_complete(ledger)
    if moved.seen:
        for entry in ledger.used():
            waits = entry.state in (State.RECEIVED, State.QUEUED) and not (entry.revoked or entry.claimed)
            if waits and reply_of(ledger.frame(entry.index)) in moved.seen:
                moved.places.add(entry.frame_at)
                ledger.revoke(entry.index, entry.seq)
    for entry in classify(ledger, facts).requeue:
        if taken_over and ledger.chunk_at <= entry.frame_at < ledger.chunk_at + ledger.chunk_size:
            # made after its connection was taken over, with this request in it
            ledger.revoke(entry.index, entry.seq)
            continue
        moved.places.add(entry.frame_at)
        copy = standby.copy(ledger.frame(entry.index))
        ledger.revoke(entry.index, entry.seq)
        if copy is not None:
            standby.enqueue(copy)
            moved.count += 1
    return moved


Ready = Callable[[], Awaitable[None]]
"""Returns when the server may learn that a connection ends."""


async def at_once() -> None:
    """It may learn it now."""


async def requeue_waiting(
    ledger: Ledger,
    sock: socket.socket | None,
    standby: Standby,
    facts: Fact = USUALLY,
    *,
    seen: Iterable[bytes] = (),
    limit: asyncio.Timeout | None = None,
    ready: Ready = at_once,
) -> Moved:
    """Moves everything that had not started to the standby, from ledger, receive buffer and kernel, and enqueues it.

    `sock` is the duplicate of the process's connection, if it has one that was not taken over yet; it is ended when
    `ready()` has returned, read to its end and closed. If the end does not come before `limit` (`DRAIN_LIMIT`), it is
    the `rest` of what is returned, and this may be called again. `seen`: reply subjects that have a copy already (a
    supervisor died in the middle of this).
    """
    moved = requeue_entries(ledger, standby, facts, seen=seen)
    if not is_complete(ledger):
        # before a byte is read: should we die in the middle, and it goes on, it must not read on where we stopped
        ledger.words[Word.FENCED_EPOCH] = ledger.words[Word.EPOCH]
        try:
            await _move_stream(ledger, sock, standby, moved, limit or asyncio.timeout(DRAIN_LIMIT), ready)
        except TimeoutError:
            moved.rest = sock
            return moved
        except (LedgerError, FrameError) as error:
            _log.error("worker slot %d: its connection cannot be taken over: %s", ledger.slot, error)
        # of the connection that was taken over: somebody else may have let the process go on, and it may have another
        complete(ledger)
    if sock is not None:
        # for all who hold it, a forked child of a handler too
        tcp.end_sending(sock)
        sock.close()
    return moved


async def requeue_from_stopped(
    ledger: Ledger, sock: socket.socket | None, standby: Standby, ledgers: LedgerCache
) -> Moved:
    """As `requeue_waiting`, of a process that is stopped and goes on afterwards: what it has started remains its own.

    Without `sock` it is between two connections: of the one to come there is nothing to take over, and it is its own.
    What is sealed nobody else can read: the connection is ended, and the process reads the rest when it goes on.
    """
    words = ledger.words
    before = words[Word.FENCED_EPOCH]
    # before anything is in two places: should we die in the middle, it must not go on (roles.supervisor.orphan)
    words[Word.FENCED_EPOCH] = words[Word.EPOCH]
    claimed = requeue_claimed(ledger, standby, ledgers)
    if sock is None or words[Word.TLS]:
        moved = requeue_entries(ledger, standby, Fact.OWNER_STOPPED)
        words[Word.FENCED_EPOCH] = before
        if sock is not None:
            tcp.end_sending(sock)
            sock.close()
    else:
        moved = await requeue_waiting(ledger, sock, standby, Fact.OWNER_STOPPED)
    moved.count += claimed
    return moved


def detach(ledger: Ledger, heir: Ledger) -> None:
    """The rest of a connection becomes `heir`'s, as if that were the ledger of a process which is dead now."""
    buffer = ReceiveBuffer(ledger)
    buffer.resume(0)
    buffer.transfer_to(heir)


def is_complete(ledger: Ledger) -> bool:
    """Whether nothing more is to come from the connection of a dead process."""
    return ledger.words[Word.DRAINED_EPOCH] == ledger.words[Word.EPOCH]


def complete(ledger: Ledger) -> None:
    """Nothing more is to come from the connection that was taken over."""
    ledger.words[Word.DRAINED_EPOCH] = ledger.words[Word.FENCED_EPOCH]


async def _move_stream(
    ledger: Ledger,
    sock: socket.socket | None,
    standby: Standby,
    moved: Moved,
    limit: asyncio.Timeout,
    ready: Ready,
) -> None:
    buffer = ReceiveBuffer(ledger)
    sealed = bool(ledger.words[Word.TLS])
    buffer.resume(tcp.bytes_taken(sock) if sock is not None and not sealed else 0)
    async with limit:
        if sock is None or sealed:
            _move_frames(ledger, buffer, standby, moved)
            if sock is not None:
                # at once: whatever comes to it is lost, and no responder is better than that
                tcp.end_sending(sock)
                await ready()
            return
        sock.setblocking(False)
        moved.broken = True
        ending = asyncio.create_task(_end_when(ready, sock, moved))
        try:
            await _read_to_end(ledger, buffer, sock, standby, moved)
        finally:
            ending.cancel()


async def _end_when(ready: Ready, sock: socket.socket, moved: Moved) -> None:
    try:
        await ready()
        moved.broken = not tcp.is_whole(sock)
    finally:
        tcp.end_sending(sock)


async def _read_to_end(
    ledger: Ledger, buffer: ReceiveBuffer, sock: socket.socket, standby: Standby, moved: Moved
) -> None:
    loop, epoch = asyncio.get_running_loop(), ledger.words[Word.EPOCH]
    while True:
        # first: a server that is never out of requests must not keep us from everything else, as from ending this
        await asyncio.sleep(0)
        needed = _move_frames(ledger, buffer, standby, moved)
        try:
            count = await loop.sock_recv_into(sock, buffer.free_space(needed))
        except OSError:
            moved.broken = True  # and has no more to give
            return
        if not count or ledger.words[Word.EPOCH] != epoch:
            return
        buffer.commit(count)


def _move_frames(ledger: Ledger, buffer: ReceiveBuffer, standby: Standby, moved: Moved) -> int:
    """Moves the whole frames of the chunk; how many bytes the unfinished one needs, 0 when that is not known."""
    found = scan(buffer.unconsumed())
    copies = []
    for begin, _, _, end, _, reply in found.messages:
        place = buffer.place() + begin
        if reply and place not in moved.places and reply not in moved.seen:
            copies.append(standby.copy(bytes(ledger.view[place : place + end - begin])))
    buffer.consume(found.end)
    needed = found.needed
    if needed > buffer.size - READ_SIZE:
        # the server's max_payload grew: no ledger here holds it, so it is answered by its first line, and passed over
        begun = buffer.unconsumed()
        if buffer.place() not in moved.places and reply_of(begun) not in moved.seen:
            standby.copy(begun)
        buffer.consume(needed)
        needed = 0
    moved.places.clear()  # entries lie in what was in the chunk at the first look
    for copy in copies:
        if copy is not None:
            standby.enqueue(copy)
            moved.count += 1
    return needed
