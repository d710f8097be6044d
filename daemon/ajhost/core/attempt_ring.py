"""A ring in shared memory of the last attempts that did not complete. Its one writer may die at any instruction.

The ring outlives its writer, as statistics do: after a crash the attempts that led to it can still be read.

    header    8 words: magic, layout, records that there is room for, records written so far
    records   512 bytes each: their number (word, written last), length (word), then JSON

A record's number is zero while its text is being written, so a reader that finds the number before and after its copy
has a whole record.
"""

from __future__ import annotations

RECORDS = 256
_MAGIC = int.from_bytes(b"ajhostA\n", "big")
_LAYOUT = 1
_HEADER = 64
_RECORD = 512
_TEXT = 16
_WORDS = _RECORD // 8
_FIRST = _HEADER // 8
LONGEST = _RECORD - _TEXT
"""Bytes of the longest record."""
SIZE = _HEADER + RECORDS * _RECORD
"""Bytes of a ring."""


class RingError(ValueError):
    """The buffer holds no ring of this layout."""


Record = tuple[int, bytes]
"""A record's number within its ring, and the bytes that were appended."""


class AttemptRing:
    """Appends to a ring. A buffer of zeros becomes an empty ring; a ring that was in use is continued."""

    __slots__ = ("_buffer", "_records", "_words")

    def __init__(self, buffer: memoryview) -> None:
        """:raises RingError: the buffer is too short, or holds something else."""
        self._buffer, self._words = buffer, _words(buffer)
        words = self._words
        if words[0] == 0:
            words[1], words[2] = _LAYOUT, (len(buffer) - _HEADER) // _RECORD
            words[0] = _MAGIC
        self._records = _check(buffer, words)

    def append(self, text: bytes) -> None:
        """Adds a record in place of the oldest.

        :raises ValueError: it is longer than `LONGEST`.
        """
        if len(text) > LONGEST:
            raise ValueError(f"{len(text)} bytes do not fit into a record of {LONGEST}")
        words = self._words
        number = (words[3] + 1) & ((1 << 62) - 1)
        first = _FIRST + number % self._records * _WORDS
        at = first * 8 + _TEXT
        words[first] = 0
        self._buffer[at : at + len(text)] = text
        words[first + 1] = len(text)
        words[first] = words[3] = number


def _words(buffer: memoryview) -> memoryview:
    if len(buffer) < _HEADER + _RECORD:
        raise RingError("shorter than a ring is")
    return buffer[: len(buffer) // 8 * 8].cast("Q")


def _check(buffer: memoryview, words: memoryview) -> int:
    if (words[0], words[1]) != (_MAGIC, _LAYOUT):
        raise RingError("no ring of this layout")
    records: int = words[2]
    if not 0 < records <= (len(buffer) - _HEADER) // _RECORD:
        raise RingError("a ring of another size")
    return records


def read(buffer: memoryview) -> list[Record]:
    """Returns the records of a ring, oldest first, without one that is being written at this moment.

    :raises RingError: the buffer holds something else.
    """
    words = _words(buffer)
    records = _check(buffer, words)
    found = (_read(buffer, words, _FIRST + index * _WORDS) for index in range(records))
    return sorted((r for r in found if r is not None), key=lambda r: r[0])


def _read(buffer: memoryview, words: memoryview, first: int) -> Record | None:
    number, length = words[first], words[first + 1]
    if not number or length > LONGEST:
        return None
    at = first * 8 + _TEXT
    text = bytes(buffer[at : at + length])
    return (number, text) if words[first] == number else None
