"""Does the step of recovery on a connection: reads what the server has sent to its end, and requeues whole frames. Says
whether the server has read all that was sent on it. Only its owner can read a TLS connection: it is ended at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from enum import Enum

from ajhost.adapters.linux import tcp
from ajhost.ledger.layout import LedgerError, Word
from ajhost.ledger.receive_buffer import READ_SIZE, ReceiveBuffer
from ajhost.protocol.frames import FrameError, reply_of, scan
from ajhost.roles.supervisor.last_resort import LastResort
from ajhost.roles.supervisor.recovery.remains import Remains
from ajhost.roles.supervisor.standby import Standby

_log = logging.getLogger("ajhost.supervisor")


class End(Enum):
    ORDERLY = "at our request: its server has read all that was sent on it"
    BROKEN = "by itself, or before our request: its server may not have read what was sent on it"
    PENDING = "not in time: its server may send more"


class ConnectionReader:
    """The reader of one connection. `count`: how many requests it has requeued from there."""

    def __init__(self, remains: Remains, standby: Standby, last_resort: LastResort) -> None:
        self._remains, self._ledger, self._standby = remains, remains.ledger, standby
        self._last_resort = last_resort
        self._buffer = ReceiveBuffer(remains.ledger)
        self.count = 0

    async def to_its_end(self, limit: asyncio.Timeout) -> End:
        """Reads what is left, within the limit. Ends a TLS connection at once: only its owner has the keys."""
        sock = self._remains.sock
        readable = None if self._ledger.words[Word.TLS] else sock
        try:
            async with limit:
                self._buffer.resume(0 if readable is None else tcp.bytes_taken(readable))
                if readable is not None:
                    return await self._read_to_end(readable)
                self._requeue_frames()
                if sock is not None:
                    # at once, even the last subscriber's: requests that arrive here are lost, `no responders` is better
                    await self._end_sending(sock, at_once=True)
                return End.ORDERLY
        except TimeoutError:
            return End.PENDING
        except (LedgerError, FrameError) as error:
            _log.error("worker slot %d: its connection cannot be taken over: %s", self._ledger.slot, error)
            return End.BROKEN

    async def _read_to_end(self, sock: socket.socket) -> End:
        loop, words = asyncio.get_running_loop(), self._ledger.words
        sock.setblocking(False)
        epoch = words[Word.EPOCH]
        ending = asyncio.create_task(self._end_sending(sock, at_once=self._remains.stopped))
        try:
            while True:
                # a server that always has more requests must not keep this process from its other tasks
                await asyncio.sleep(0)
                needed = self._requeue_frames()
                try:
                    count = await loop.sock_recv_into(sock, self._buffer.free_space(needed))
                except OSError:
                    return End.BROKEN  # and nothing more comes
                if not count or words[Word.EPOCH] != epoch:
                    asked = ending.done() and ending.exception() is None and ending.result()
                    return End.ORDERLY if asked else End.BROKEN
                self._buffer.commit(count)
        finally:
            ending.cancel()

    async def _end_sending(self, sock: socket.socket, *, at_once: bool) -> bool:
        """Ends this side of the connection; the last subscriber's only when another process is subscribed.

        Returns whether the connection was whole until then, so that the server reads all that was sent on it.
        """
        try:
            if not at_once:
                await self._last_resort.subscribe_if_last(None)
            return tcp.is_whole(sock)
        finally:
            tcp.end_sending(sock)

    def _requeue_frames(self) -> int:
        """Requeues the whole frames of the buffer. Returns how many bytes the unfinished one needs, 0 if not known."""
        ledger, buffer, standby = self._ledger, self._buffer, self._standby
        found = scan(buffer.unconsumed())
        # no process noted when they came: about when their owner last ran, so before a server restart that ended it
        received_ns = ledger.words[Word.HEARTBEAT]
        copies = []
        for begin, _, _, end, _, reply in found.messages:
            place = buffer.place() + begin
            if reply and self._is_new(place, reply):
                copies.append(standby.copy(bytes(ledger.view[place : place + end - begin]), received_ns))
        buffer.consume(found.end)
        needed, begun, place = found.needed, buffer.unconsumed(), buffer.place()
        if needed > buffer.size - READ_SIZE or (needed and not buffer.free_space(needed)):
            # no ledger here holds it, as the server's max_payload grew, or memory is short: `copy` refuses it by its
            # first line, and the rest is passed over
            if self._is_new(place, reply_of(begun)):
                standby.copy(begun, received_ns)
            buffer.consume(needed)
            needed = 0
        self._remains.places.clear()  # from now on the buffer has only frames that are in no entry
        for copy in copies:
            if copy is not None:
                standby.enqueue(copy)
                self.count += 1
        return needed

    def _is_new(self, place: int, reply: bytes) -> bool:
        return place not in self._remains.places and reply not in self._remains.copied
