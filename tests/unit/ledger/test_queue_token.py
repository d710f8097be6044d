"""What a token is worth, for each state that its entry can be in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ajhost.ledger import writer
from ajhost.ledger.layout import Geometry
from ajhost.ledger.queue_token import SIZE, Token, TokenState, check, unpack
from ajhost.ledger.writer import LedgerWriter
from tests.support.memory_ledger import ledger_in_memory

FRAME = b"MSG s 1 r 0\r\n\r\n"


def started(owner: LedgerWriter, index: int) -> None:
    owner.start(index, 1, b"r", b"i", b"t", 0, 1)


def revoked(owner: LedgerWriter, index: int) -> None:
    owner.queue(index, 1)
    owner.revoke(index, 1)


def taken(owner: LedgerWriter, index: int) -> None:
    owner.queue(index, 1)
    owner.claim(index, 1)


def reused(owner: LedgerWriter, index: int) -> None:
    owner.release(index)
    again = owner.receive_copy(FRAME, 0)
    assert again == index
    owner.queue(index, owner.state(index)[0])


@pytest.mark.parametrize(
    ("become", "worth"),
    [
        (lambda owner, index: None, TokenState.PENDING),
        (lambda owner, index: owner.queue(index, 1), TokenState.VALID),
        (lambda owner, index: owner.revoke(index, 1), TokenState.STALE),
        (revoked, TokenState.STALE),
        (taken, TokenState.STALE),
        (started, TokenState.STALE),
        (lambda owner, index: owner.refuse(index, b"r"), TokenState.STALE),
        (lambda owner, index: owner.release(index), TokenState.STALE),
        (reused, TokenState.STALE),
    ],
    ids=[
        "received",
        "queued",
        "revoked",
        "queued and revoked",
        "claimed",
        "started",
        "refused",
        "free",
        "reused",
    ],
)
def test_a_token_is_worth_what_its_entry_says(become: Callable[[LedgerWriter, int], None], worth: TokenState) -> None:
    owner = ledger_in_memory()
    index = owner.receive_copy(FRAME, 0)
    assert index is not None
    token = Token(owner.serial, index, owner.state(index)[0], 10)
    become(owner, index)
    assert check(token, owner) is worth


@pytest.mark.parametrize("entry", [4, 1 << 62])
def test_a_token_for_an_entry_beyond_the_ledger_is_stale(entry: int) -> None:
    assert check(Token(7, entry, 1, 0), ledger_in_memory(Geometry(4, 4096, 4096))) is TokenState.STALE


def test_what_was_revoked_of_an_entrys_earlier_request_does_not_touch_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "_RESTING", 0)
    owner = ledger_in_memory()
    index = owner.receive_copy(FRAME, 0)
    assert index is not None
    owner.revoke(index, 1)
    owner.claim(index, 1)
    owner.release(index)
    assert owner.receive_copy(FRAME, 0) == index
    owner.queue(index, 2)
    assert check(Token(7, index, 2, 0), owner) is TokenState.VALID


def test_a_token_comes_out_as_it_went_in() -> None:
    token = Token(1 << 63, 5, (1 << 56) - 1, 1 << 60)
    assert len(token.pack()) == SIZE
    assert unpack(token.pack()) == token


def test_a_header_without_a_token_names_nobody() -> None:
    assert unpack(bytes(SIZE)).serial == 0
