"""Tokens of the shared queue: a token is a datagram that names an entry of a process's ledger, without its payload.
Decides whether the request of a token may still be started.

One entry has one valid token at a time, and the kernel gives a datagram to one receiver. So only the process that
received the token may start the request.
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
    """The name of a waiting entry, and its deadline. `deadline_ns` is monotonic."""

    serial: int
    entry: int
    seq: int
    deadline_ns: int

    def pack(self) -> bytes:
        return _FORMAT.pack(*self)


def unpack(data: bytes | memoryview) -> Token:
    """Returns the token of a datagram or of a place in a ledger's header (all zero: none, serial 0)."""
    return Token(*_FORMAT.unpack_from(data))


def token_places(ledger: Ledger) -> list[memoryview]:
    """Returns the places in a ledger's header for the tokens that its owner receives."""
    first = Word.TOKENS * 8
    return [ledger.view[at : at + SIZE] for at in range(first, first + TOKEN_PLACES * SIZE, SIZE)]


class TokenState(Enum):
    """What a consumer may do with a token, by the state of its entry."""

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
