"""The steps of recovery: what a process had not started runs elsewhere, what it had started is answered.

A SIGKILL of the supervisor between any two steps is harmless by their order: a request is in the standby's ledger
before it is revoked in its old one, and its token is sent after that (docs/architecture.md, "Recovery").
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
    """Answers what a dead process had started, and claims at its origin what it had pulled.

    Not what it had sent on a connection that is whole: see `confirm_sent`. `told`: reply subjects that another ledger
    has answers for; those answered here are added.
    """
    told, count = set() if told is None else told, 0
    for entry in classify(ledger, facts).answer:
        if not _claim_origin(entry, ledgers):
            ledger.revoke(entry.index, entry.seq)
            continue
        if entry.reply not in told:
            told.add(entry.reply)
            outcome = verdict(entry)
            standby.answer(entry.reply, outcome, entry.asked_at)
            standby.answered.begun(ledger, entry, outcome)
            count += 1
        ledger.revoke(entry.index, entry.seq)
    return count


def confirm_sent(ledger: Ledger, standby: Standby, *, read: bool) -> None:
    """Settles what a dead process had sent: nothing to do if the server has `read` it, else it is answered."""
    for entry in classify(ledger).confirm:
        if not read and not entry.revoked:
            outcome = Failed.because(FailureReason.WORKER_DIED, "and with it the server that had its reply")
            standby.answer(entry.reply, outcome, entry.asked_at)
            standby.answered.begun(ledger, entry, outcome)
        ledger.revoke(entry.index, entry.seq)


def _claim_origin(entry: Entry, ledgers: LedgerCache) -> bool:
    """Claims a request at its origin; False when another process has it.

    The consumer may have died between storing its own entry and claiming the original.
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
                return False  # the consumer was stopped, and the supervisor moved the request
            owner.claim(index, seq)
    return True


def answer_for(ledger: Ledger, entry: Entry, standby: Standby, text: str) -> None:
    """Answers a request whose owner cannot: it hangs, or is dead while the request is in the shared queue."""
    reply, frame = entry.reply, b""
    if entry.state in (State.RECEIVED, State.QUEUED):
        frame = ledger.frame(entry.index)
        reply = reply_of(frame)
        if ledger.state(entry.index) != (entry.seq, entry.state):
            return  # the owner goes on after all, and the frame that was read may be another request's
    standby.answer(reply, Failed(text), entry.asked_at)
    if frame:
        standby.answered.refused(frame, text)
    else:
        standby.answered.begun(ledger, entry, Failed(text))
    ledger.revoke(entry.index, entry.seq)


def requeue_tokens(ledger: Ledger, standby: Standby, ledgers: LedgerCache) -> int:
    """Requeues the requests whose tokens a dead or stopped process had received and not used. Returns how many.

    The requests are moved to the standby's ledger and not just their tokens sent again: another copy of the same token,
    which an earlier recovery may have sent, is STALE then.
    """
    count = 0
    for token in map(unpack, token_places(ledger)):
        owner = ledgers.get(token.serial) if token.serial else None
        if owner is None or check(token, owner) is TokenState.STALE:
            continue
        copy = standby.copy(owner.frame(token.entry), owner.received_ns(token.entry))
        owner.revoke(token.entry, token.seq)
        if copy is not None:
            standby.enqueue(copy)
        count += 1
    return count


def requeue_claimed(ledger: Ledger, standby: Standby, ledgers: LedgerCache) -> int:
    """As `requeue_tokens`, of a stopped process, which keeps what it has started."""
    for entry in classify(ledger).answer:
        _claim_origin(entry, ledgers)
    return requeue_tokens(ledger, standby, ledgers)


@dataclass(slots=True)
class Requeued:
    """What was requeued: how many, the reply subjects that have a copy already, and where in the file their frames lie.

    `rest`: the connection, if its server has not ended it in time and may send more. `broken`: the connection did not
    end in order, or not at this process's request, so its server may not have read, or passed on, what was sent on it.
    """

    count: int = 0
    broken: bool = False
    rest: socket.socket | None = None
    seen: set[bytes] = field(default_factory=set)
    places: set[int] = field(default_factory=set)


def requeue_entries(
    ledger: Ledger, standby: Standby, facts: Fact = USUALLY, *, seen: Iterable[bytes] = ()
) -> Requeued:
    """Requeues what is in a ledger and had not started; see `requeue_waiting`."""
    requeued = Requeued(seen=set(seen))
    taken_over = ledger.words[Word.EPOCH] and is_complete(ledger)
    if requeued.seen:
        for entry in ledger.used():
            waits = entry.state in (State.RECEIVED, State.QUEUED) and not (entry.revoked or entry.claimed)
            if waits and reply_of(ledger.frame(entry.index)) in requeued.seen:
                requeued.places.add(entry.frame_at)
                ledger.revoke(entry.index, entry.seq)
    for entry in classify(ledger, facts).requeue:
        if taken_over and ledger.chunk_at <= entry.frame_at < ledger.chunk_at + ledger.chunk_size:
            # this entry was made after its connection, with this request in it, was taken over
            ledger.revoke(entry.index, entry.seq)
            continue
        requeued.places.add(entry.frame_at)
        copy = standby.copy(ledger.frame(entry.index), entry.received_ns)
        ledger.revoke(entry.index, entry.seq)
        if copy is not None:
            standby.enqueue(copy)
            requeued.count += 1
    return requeued


Ready = Callable[[], Awaitable[None]]
"""Returns when the server may be told that a connection ends."""


async def at_once() -> None:
    """It may be told now."""


async def requeue_waiting(
    ledger: Ledger,
    sock: socket.socket | None,
    standby: Standby,
    facts: Fact = USUALLY,
    *,
    seen: Iterable[bytes] = (),
    limit: asyncio.Timeout | None = None,
    ready: Ready = at_once,
) -> Requeued:
    """Requeues all that had not started, from ledger, receive buffer and kernel, through the standby.

    `sock` is the duplicate of the process's connection, if there is one that was not taken over yet. It is shut down
    when `ready()` has returned, read to its end and closed. If it does not end before `limit` (`DRAIN_LIMIT`), it is
    the `rest` of what is returned, and this may be called again. `seen`: reply subjects that have a copy already, when
    a supervisor died in the middle of this.
    """
    requeued = requeue_entries(ledger, standby, facts, seen=seen)
    if not is_complete(ledger):
        # before a byte is read: if the supervisor dies in the middle, a worker that goes on must not read on there
        ledger.words[Word.FENCED_EPOCH] = ledger.words[Word.EPOCH]
        try:
            await _move_stream(ledger, sock, standby, requeued, limit or asyncio.timeout(DRAIN_LIMIT), ready)
        except TimeoutError:
            requeued.rest = sock
            return requeued
        except (LedgerError, FrameError) as error:
            _log.error("worker slot %d: its connection cannot be taken over: %s", ledger.slot, error)
        # of the connection that was taken over: the process may have been resumed by another, and have a new one
        complete(ledger)
    if sock is not None:
        # for every process that has it, also a child that a handler has forked
        tcp.end_sending(sock)
        sock.close()
    return requeued


async def requeue_from_stopped(
    ledger: Ledger, sock: socket.socket | None, standby: Standby, ledgers: LedgerCache
) -> Requeued:
    """As `requeue_waiting`, of a process that is stopped and resumed afterwards, which keeps what it has started.

    Without `sock` it is between two connections, and there is none to take over. An encrypted connection cannot be read
    here: it is ended, and the process reads the rest when it goes on.
    """
    words = ledger.words
    before = words[Word.FENCED_EPOCH]
    # before anything is in two places: if the supervisor dies in the middle, the worker must not go on (orphan.py)
    words[Word.FENCED_EPOCH] = words[Word.EPOCH]
    claimed = requeue_claimed(ledger, standby, ledgers)
    if sock is None or words[Word.TLS]:
        requeued = requeue_entries(ledger, standby, Fact.OWNER_STOPPED)
        words[Word.FENCED_EPOCH] = before
        if sock is not None:
            tcp.end_sending(sock)
            sock.close()
    else:
        requeued = await requeue_waiting(ledger, sock, standby, Fact.OWNER_STOPPED)
    requeued.count += claimed
    return requeued


def detach(ledger: Ledger, heir: Ledger) -> None:
    """Gives the rest of a connection to the ledger `heir`, as if its owner had died with this connection."""
    buffer = ReceiveBuffer(ledger)
    buffer.resume(0)
    buffer.transfer_to(heir)


def is_complete(ledger: Ledger) -> bool:
    """Whether the takeover of a dead process's connection is finished."""
    return ledger.words[Word.DRAINED_EPOCH] == ledger.words[Word.EPOCH]


def complete(ledger: Ledger) -> None:
    """Marks the takeover as finished: nothing more comes from the connection."""
    ledger.words[Word.DRAINED_EPOCH] = ledger.words[Word.FENCED_EPOCH]


async def _move_stream(
    ledger: Ledger,
    sock: socket.socket | None,
    standby: Standby,
    requeued: Requeued,
    limit: asyncio.Timeout,
    ready: Ready,
) -> None:
    buffer = ReceiveBuffer(ledger)
    sealed = bool(ledger.words[Word.TLS])
    buffer.resume(tcp.bytes_taken(sock) if sock is not None and not sealed else 0)
    async with limit:
        if sock is None or sealed:
            _move_frames(ledger, buffer, standby, requeued)
            if sock is not None:
                # at once: what arrives on it would be lost, and `no responders` is better than that
                tcp.end_sending(sock)
                await ready()
            return
        sock.setblocking(False)
        requeued.broken = True
        ending = asyncio.create_task(_end_when(ready, sock, requeued))
        try:
            await _read_to_end(ledger, buffer, sock, standby, requeued)
        finally:
            ending.cancel()


async def _end_when(ready: Ready, sock: socket.socket, requeued: Requeued) -> None:
    try:
        await ready()
        requeued.broken = not tcp.is_whole(sock)
    finally:
        tcp.end_sending(sock)


async def _read_to_end(
    ledger: Ledger, buffer: ReceiveBuffer, sock: socket.socket, standby: Standby, requeued: Requeued
) -> None:
    loop, epoch = asyncio.get_running_loop(), ledger.words[Word.EPOCH]
    while True:
        # first: a server that always has more requests must not keep this process from everything else
        await asyncio.sleep(0)
        needed = _move_frames(ledger, buffer, standby, requeued)
        try:
            count = await loop.sock_recv_into(sock, buffer.free_space(needed))
        except OSError:
            requeued.broken = True  # and nothing more comes
            return
        if not count or ledger.words[Word.EPOCH] != epoch:
            return
        buffer.commit(count)


def _move_frames(ledger: Ledger, buffer: ReceiveBuffer, standby: Standby, requeued: Requeued) -> int:
    """Requeues the whole frames of the buffer. Returns how many bytes the unfinished one needs, 0 if not known."""
    found = scan(buffer.unconsumed())
    # nobody noted when they came; about when their owner last ran, and before a restart of the server that ended it
    received_ns = ledger.words[Word.HEARTBEAT]
    copies = []
    for begin, _, _, end, _, reply in found.messages:
        place = buffer.place() + begin
        if reply and place not in requeued.places and reply not in requeued.seen:
            copies.append(standby.copy(bytes(ledger.view[place : place + end - begin]), received_ns))
    buffer.consume(found.end)
    needed, begun, place = found.needed, buffer.unconsumed(), buffer.place()
    if needed > buffer.size - READ_SIZE or (needed and not buffer.free_space(needed)):
        # no ledger here holds it, as the server's max_payload grew, or memory is short: it is answered by its first
        # line and passed over
        if place not in requeued.places and reply_of(begun) not in requeued.seen:
            standby.copy(begun, received_ns)
        buffer.consume(needed)
        needed = 0
    requeued.places.clear()  # only what was in the buffer at the first look lies in entries
    for copy in copies:
        if copy is not None:
            standby.enqueue(copy)
            requeued.count += 1
    return needed
