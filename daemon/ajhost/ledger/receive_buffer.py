"""The chunk of a ledger: where a connection is received, by its owner or by the supervisor that inherited it.

`RECEIVED_POS` and `PARSED_POS` are stream positions; the byte at position p lies at `p - BASE`. Each change is one
store, so a kill leaves a state that `ReceiveBuffer.resume` can go on from. `PARSED_POS` may be ahead of `RECEIVED_POS`:
what is still to come of a frame that no chunk holds is passed over, by whoever receives it.
"""

from __future__ import annotations

from ajhost.ledger.layout import LedgerError, Word
from ajhost.ledger.view import Ledger

READ_SIZE = 1 << 15
"""Bytes that there is always room for. What is read at once is run at once, and with its tasks should stay in a
processor's cache: twice as much costs 3 % more where other machines share that."""
LONGEST_FRAME = 1 << 32
"""Bytes of a frame that are believed."""


class ReceiveBuffer:
    """Positions of one connection."""

    __slots__ = ("_base", "_memory", "_words", "at", "done", "received", "size")

    def __init__(self, ledger: Ledger) -> None:
        self._words = ledger.words
        self._memory = ledger.view[ledger.chunk_at : ledger.chunk_at + ledger.chunk_size]
        self.at = ledger.chunk_at
        self.size = ledger.chunk_size
        self._base = self.done = self.received = 0

    def reset(self) -> None:
        """A new connection begins at position 0. The epoch goes first: the positions below belong to it."""
        words = self._words
        words[Word.EPOCH] += 1
        words[Word.RECEIVED_POS] = words[Word.PARSED_POS] = words[Word.BASE] = 0
        self._base = self.done = self.received = 0

    def resume(self, taken: int) -> None:
        """Goes on where a dead owner stopped; `taken` is the kernel's count of what it received, recorded or not.

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
            raise LedgerError(
                f"positions: base {self._base}, done {self.done}, received {end}, chunk {self.size}"
            )
        self.received = words[Word.RECEIVED_POS] = end

    def free_space(self, needed: int) -> memoryview:
        """Where to receive next; `needed` bytes are known to belong to the unfinished frame at `done`.

        An unfinished frame is moved to the front when the end is near: by copy, then one store. The geometry makes
        sure that the two places do not overlap (`ledger.layout.geometry_for`).
        """
        left = max(self.received - self.done, 0)
        if not left and self._base != self.received:
            self._base = self._words[Word.BASE] = self.received
        end = self.received - self._base
        wanted = max(READ_SIZE, needed - left)
        if self.size - end < wanted:
            self._memory[:left] = self._memory[end - left : end]
            self._base = self._words[Word.BASE] = self.done
            end = left
        return self._memory[end : end + wanted]

    def commit(self, count: int) -> None:
        """`count` bytes were received into `free_space`."""
        self.received = self._words[Word.RECEIVED_POS] = self.received + count

    def unconsumed(self) -> bytes:
        """A copy of what is received and not done; nothing while a frame is passed over."""
        return bytes(self._memory[self.done - self._base : self.received - self._base])

    def place(self) -> int:
        """The file offset of the byte at `done`."""
        return self.at + self.done - self._base

    def transfer_to(self, heir: Ledger) -> None:
        """Another ledger, whose chunk is at least as large, goes on with this connection as if it had been its own.

        The positions stay; the unfinished frame is copied, and the epoch that says there is a connection comes last.
        """
        words, rest = heir.words, self.unconsumed()
        heir.view[heir.chunk_at : heir.chunk_at + len(rest)] = rest
        words[Word.BASE] = self.received - len(rest)
        words[Word.PARSED_POS], words[Word.RECEIVED_POS] = self.done, self.received
        words[Word.EPOCH] = 1

    def consume(self, count: int) -> None:
        """`count` more bytes are in a ledger, or of no interest, whether they are received already or not."""
        self.done = self._words[Word.PARSED_POS] = self.done + count
