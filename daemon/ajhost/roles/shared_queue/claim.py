"""Decides between a consumer, which claims a request, and its owner, which takes the request back to refuse it.

Both store first and look then, so at least one sees the other. If both do, the claim wins: the owner always gives way
to it. So the consumer must know whether the owner looked before the claim was stored. The owner alone knows, and the
state that it gives to the entry says so (`ledger.states.AFTER_CLAIM`).
"""

from __future__ import annotations

import time

from ajhost.core.timings import VERDICT_LIMIT, VERDICT_RECHECK
from ajhost.ledger.queue_token import Token
from ajhost.ledger.states import Claim
from ajhost.ledger.view import Ledger


def claim(token: Token, owner: Ledger) -> bool:
    """Claims a request that this process has STARTED. Returns whether this process has it.

    The supervisor calls it for a consumer that died or was stopped between the two stores.
    """
    # after the store: either the supervisor, which stopped this process, saw STARTED, or this sees that it revoked
    return owner.claim(token.entry, token.seq) or wins(token, owner)


def wins(token: Token, owner: Ledger) -> bool:
    """Whether a claim wins. Waits for an owner that is between taking the request back and refusing it.

    That takes a few instructions. If the owner was stopped or killed there, the claim wins: recovery moves only
    requests that no process has claimed.
    """
    entry, seq = token.entry, token.seq
    end = time.monotonic() + VERDICT_LIMIT
    while (worth := owner.claim_worth(entry, seq)) is Claim.OPEN and time.monotonic() < end:
        if owner.is_revoked(entry, seq):
            return False
        time.sleep(VERDICT_RECHECK)
    return worth is not Claim.LOST and not owner.is_revoked(entry, seq)
