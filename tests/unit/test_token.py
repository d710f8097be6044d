"""What a token is worth, for each state that its entry can be in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ajhost.core.layout import Geometry
from ajhost.core.own_ledger import OwnLedger
from ajhost.core.token import SIZE, Claim, Token, claim, unpack
from tests.support.memory import ledger_in_memory

FRAME = b"MSG s 1 r 0\r\n\r\n"


def started(owner: OwnLedger, index: int) -> None:
    owner.start(index, 1, b"r", b"i", b"t", 0, 1)


def said(owner: OwnLedger, index: int) -> None:
    owner.queue(index, 1)
    owner.say(index, 1)


def taken(owner: OwnLedger, index: int) -> None:
    owner.queue(index, 1)
    owner.take(index, 1)


def reused(owner: OwnLedger, index: int) -> None:
    owner.release(index)
    again = owner.receive_copy(FRAME, 0)
    assert again == index
    owner.queue(index, owner.state(index)[0])


@pytest.mark.parametrize(
    ("become", "worth"),
    [
        (lambda owner, index: None, Claim.UNDECIDED),
        (lambda owner, index: owner.queue(index, 1), Claim.MINE),
        (lambda owner, index: owner.say(index, 1), Claim.STALE),
        (said, Claim.STALE),
        (taken, Claim.STALE),
        (started, Claim.STALE),
        (lambda owner, index: owner.refuse(index, b"r"), Claim.STALE),
        (lambda owner, index: owner.release(index), Claim.STALE),
        (reused, Claim.STALE),
    ],
    ids=["received", "queued", "said", "queued and said", "taken", "started", "refused", "free", "reused"],
)
def test_a_token_is_worth_what_its_entry_says(become: Callable[[OwnLedger, int], None], worth: Claim) -> None:
    owner = ledger_in_memory()
    index = owner.receive_copy(FRAME, 0)
    assert index is not None
    token = Token(owner.serial, index, owner.state(index)[0], 10)
    become(owner, index)
    assert claim(token, owner) is worth


@pytest.mark.parametrize("entry", [4, 1 << 62])
def test_a_token_for_an_entry_beyond_the_ledger_is_stale(entry: int) -> None:
    assert claim(Token(7, entry, 1, 0), ledger_in_memory(Geometry(4, 4096, 4096))) is Claim.STALE


def test_what_was_said_of_an_entrys_earlier_request_does_not_touch_the_next_one() -> None:
    owner = ledger_in_memory()
    index = owner.receive_copy(FRAME, 0)
    assert index is not None
    owner.say(index, 1)
    owner.take(index, 1)
    owner.release(index)
    assert owner.receive_copy(FRAME, 0) == index
    owner.queue(index, 2)
    assert claim(Token(7, index, 2, 0), owner) is Claim.MINE


def test_a_token_comes_out_as_it_went_in() -> None:
    token = Token(1 << 63, 5, (1 << 56) - 1, 1 << 60)
    assert len(token.pack()) == SIZE
    assert unpack(token.pack()) == token


def test_a_header_without_a_token_names_nobody() -> None:
    assert unpack(bytes(SIZE)).serial == 0
