"""The receive buffer of a ledger, into which its owner receives, or the supervisor that takes the connection over. Has
memory set aside for a message beyond 1 MiB when it comes, and gives it back. Decides how slowly a server may send
before it counts as silent (`core/connection_machine.py` has the time for it).

`RECEIVED_POS` and `PARSED_POS` are stream positions; the byte at position p lies at `p - BASE`. Each change is one
store, so `ReceiveBuffer.resume` can continue after a SIGKILL. `PARSED_POS` is ahead of `RECEIVED_POS` while the owner
skips a frame that is longer than any receive buffer.
"""

from __future__ import annotations

from ajhost.ledger.layout import LARGEST, LedgerError, Word
from ajhost.ledger.view import Ledger

READ_SIZE = 1 << 15
"""Bytes that can always be received at once. Requests of one read run together; with their tasks they should fit into a
processor's cache.
"""
# constants of their own, since reading a class attribute costs as much as a store, and each batch reads these
_BASE, _RECEIVED_POS, _PARSED_POS = int(Word.BASE), int(Word.RECEIVED_POS), int(Word.PARSED_POS)
LONGEST_FRAME = 1 << 32
"""The longest possible frame, in bytes: a larger number is damage."""


class ReceiveBuffer:
    """The positions of one connection and the bytes between them. `done`: frames are parsed up to this position."""

    __slots__ = (
        "_backed", "_base", "_ledger", "_memory", "_prepared", "_words", "at", "done", "received", "size",
    )  # fmt: skip

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._words = ledger, ledger.words
        self._memory = ledger.view[ledger.chunk_at : ledger.chunk_at + ledger.chunk_size]
        self.at = ledger.chunk_at
        self.size = ledger.chunk_size
        self._prepared = self._backed = ledger.chunk_prepared or self.size
        self._base = self.done = self.received = 0

    def reset(self) -> None:
        """Begins a new connection at position 0. The epoch is stored first, since the positions belong to it."""
        words = self._words
        words[Word.EPOCH] = words[Word.EPOCH] % LARGEST + 1  # a stray write may have left any number
        words[Word.RECEIVED_POS] = words[Word.PARSED_POS] = words[Word.BASE] = 0
        self._base = self.done = self.received = 0

    def resume(self, taken: int) -> None:
        """Continues where a dead owner stopped. `taken`: how many bytes it received by the kernel's count, which may be
        more than it recorded.

        :raises LedgerError: when the positions cannot be true.
        """
        words = self._words
        self._base, self.done = words[Word.BASE], words[Word.PARSED_POS]
        end = max(words[Word.RECEIVED_POS], taken)
        if not (
            self._base <= min(self.done, words[Word.RECEIVED_POS])
            and words[Word.RECEIVED_POS] <= end <= self._base + self.size
            and self.done <= words[Word.RECEIVED_POS] + LONGEST_FRAME
        ):
            raise LedgerError(f"positions: base {self._base}, done {self.done}, received {end}, chunk {self.size}")
        self.received = words[Word.RECEIVED_POS] = end

    def free_space(self, needed: int) -> memoryview:
        """Returns the memory to receive into; empty when there is none for the frame.

        `needed`: bytes of the unfinished frame at `done`, as far as is known. Near the end of the memory that is set
        aside, that frame is moved to the front, by a copy and one store, unless the two places overlap. The buffer is
        so large that the rest of the frame then fits behind it (`ledger.layout.geometry_for`).
        """
        received, backed, wanted = self.received, self._backed, READ_SIZE
        left = received - self.done
        if left <= 0:
            left = 0
            if self._base != received:
                self._base = self._words[_BASE] = received
        end = received - self._base
        if needed - left > wanted:
            wanted = needed - left
        if backed - end < wanted or backed != self._prepared:
            end = self._move(end, left, wanted)
            if self._backed - end < wanted and not self._set_aside(end + wanted):
                return self._memory[:0]
        return self._memory[end : end + wanted]

    def _move(self, end: int, left: int, wanted: int) -> int:
        """Moves the unfinished frame to the front if that makes room. Returns where it ends now."""
        if self._backed - end < wanted and 2 * left <= end:
            self._memory[:left] = self._memory[end - left : end]
            self._base = self._words[Word.BASE] = self.done
            end = left
        if self._backed != self._prepared and end + wanted <= self._prepared:
            self._ledger.give_back(self.at + self._prepared, self._backed - self._prepared)
            self._backed = self._prepared
        return end

    def _set_aside(self, size: int) -> bool:
        size = min(size, self.size)
        if size > self._backed:
            if not self._ledger.set_aside(self.at + self._backed, size - self._backed):
                return False
            self._backed = size
        return True

    def commit(self, count: int) -> None:
        """Records that `count` bytes were received into `free_space`."""
        self.received = self._words[_RECEIVED_POS] = self.received + count

    def unconsumed(self) -> bytes:
        """Returns a copy of the bytes that are received and not parsed; none while a frame is skipped."""
        return bytes(self._memory[self.done - self._base : self.received - self._base])

    def progress(self, needed: int) -> int:
        """Returns a number that grows with whole operations, and with each kilobyte of an unfinished message.

        So a server that sends a byte now and then counts as silent. `needed`: as for `free_space`.
        """
        more = self.received - self.done  # below 0 while a message is skipped
        return self.done + (more >> 10) if needed or more < 0 else self.done

    def place(self) -> int:
        """Returns the file offset of the byte at `done`."""
        return self.at + self.done - self._base

    def transfer_to(self, heir: Ledger) -> None:
        """Copies the connection's state into another ledger, whose buffer is at least as large, to be continued there.

        The positions stay the same, and the unfinished frame is copied. The epoch is stored last, since it says that
        the ledger has a connection.
        """
        words, rest = heir.words, self.unconsumed()
        heir.view[heir.chunk_at : heir.chunk_at + len(rest)] = rest
        words[Word.BASE] = self.received - len(rest)
        words[Word.PARSED_POS], words[Word.RECEIVED_POS] = self.done, self.received
        words[Word.EPOCH] = 1

    def consume(self, count: int) -> None:
        """Records that `count` more bytes, received or not, are in entries or are to be skipped."""
        self.done = self._words[_PARSED_POS] = self.done + count
