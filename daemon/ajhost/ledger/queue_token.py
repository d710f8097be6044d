"""Tokens of the shared queue: a datagram that names an entry in some process's ledger, never its payload.

One entry has one valid token at a time, so that whoever received it from the kernel's queue is alone with the request.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

from ajhost.ledger.layout import TOKEN_PLACES, State, Word
from ajhost.ledger.view import Ledger

_FORMAT = struct.Struct("=QQQQ")
SIZE = _FORMAT.size
"""Bytes of a token; it is received straight into the consumer's ledger (`token_places`)."""


class Token(NamedTuple):
    """Which entry waits. `deadline_ns` is monotonic."""

    serial: int
    entry: int
    seq: int
    deadline_ns: int

    def pack(self) -> bytes:
        """The datagram."""
        return _FORMAT.pack(*self)


def unpack(data: bytes | memoryview) -> Token:
    """The token in a datagram or in a ledger's header (all zero: none, serial 0)."""
    return Token(*_FORMAT.unpack_from(data))


def token_places(ledger: Ledger) -> list[memoryview]:
    """Where in a ledger's header the tokens lie that its owner has received."""
    first = Word.TOKENS * 8
    return [ledger.view[at : at + SIZE] for at in range(first, first + TOKEN_PLACES * SIZE, SIZE)]


class TokenState(Enum):
    """What a token is worth when its entry is looked at."""

    VALID = "the request may be started by whoever holds the token"
    STALE = "claimed, revoked, expired or freed: drop the token"
    PENDING = "its pusher is between storing and sending, or died there: look again"


def check(token: Token, ledger: Ledger) -> TokenState:
    """Judges a token against its entry. The pusher writes QUEUED after the send, so RECEIVED means not decided."""
    if token.entry >= ledger.entries:
        return TokenState.STALE
    seq, state = ledger.state(token.entry)
    if seq != token.seq or ledger.is_revoked(token.entry, seq) or ledger.is_claimed(token.entry, seq):
        return TokenState.STALE
    if state == State.QUEUED:
        return TokenState.VALID
    return TokenState.PENDING if state == State.RECEIVED else TokenState.STALE
