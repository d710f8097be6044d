"""Tokens of the shared queue: a datagram that names an entry in some process's ledger, never its payload.

One entry has one valid token at a time, and the kernel gives a datagram to one receiver. So the process that received a
token is the only one that may start the request.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

from ajhost.ledger.layout import TOKEN_PLACES, State, Word
from ajhost.ledger.view import Ledger

_FORMAT = struct.Struct("=QQQQ")
SIZE = _FORMAT.size
"""Bytes of a token. The kernel stores it straight into the consumer's ledger (`token_places`)."""


class Token(NamedTuple):
    """Names an entry that waits. `deadline_ns` is monotonic."""

    serial: int
    entry: int
    seq: int
    deadline_ns: int

    def pack(self) -> bytes:
        return _FORMAT.pack(*self)


def unpack(data: bytes | memoryview) -> Token:
    """The token in a datagram or in a ledger's header (all zero: none, serial 0)."""
    return Token(*_FORMAT.unpack_from(data))


def token_places(ledger: Ledger) -> list[memoryview]:
    """The places in a ledger's header for the tokens that its owner has received."""
    first = Word.TOKENS * 8
    return [ledger.view[at : at + SIZE] for at in range(first, first + TOKEN_PLACES * SIZE, SIZE)]


class TokenState(Enum):
    """What a consumer that holds a token may do, from a look at its entry."""

    VALID = "the request may be started by whoever holds the token"
    STALE = "claimed, revoked, expired or freed: drop the token"
    PENDING = "its producer is between sending and storing QUEUED, or died there: check again"


def check(token: Token, ledger: Ledger) -> TokenState:
    """Compares a token with its entry. The producer stores QUEUED after it sent the token, so RECEIVED is PENDING."""
    if token.entry >= ledger.entries:
        return TokenState.STALE
    seq, state = ledger.state(token.entry)
    if seq != token.seq or ledger.is_revoked(token.entry, seq) or ledger.is_claimed(token.entry, seq):
        return TokenState.STALE
    if state == State.QUEUED:
        return TokenState.VALID
    return TokenState.PENDING if state == State.RECEIVED else TokenState.STALE
