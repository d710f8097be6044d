"""Who has a request: the process that holds its token and claims it, or its owner, which takes it back to refuse it.

Both store first and look then, so at least one sees the other. Where both do, the claim wins: the owner always gives
way to it. So the consumer needs to know whether the owner looked before the claim was there, and only the owner knows.
It tells by what it makes of the entry (`ledger.states.AFTER_CLAIM`).
"""

from __future__ import annotations

import time

from ajhost.core.timings import VERDICT_LIMIT, VERDICT_RECHECK
from ajhost.ledger.queue_token import Token
from ajhost.ledger.states import Claim
from ajhost.ledger.view import Ledger


def claim(token: Token, owner: Ledger) -> bool:
    """Claims a request that this process has STARTED; whether it is this process's.

    The supervisor calls it for a consumer that died or stands still between the two stores.
    """
    # after the store: either the supervisor, which stopped this process, saw STARTED, or this sees that it revoked
    return owner.claim(token.entry, token.seq) or wins(token, owner)


def wins(token: Token, owner: Ledger) -> bool:
    """What a claim was worth. Waits for an owner that stands between taking the request back and refusing it.

    It stands there for a few instructions. An owner that was stopped or killed there leaves the request to the claim:
    recovery moves only what nobody has claimed.
    """
    entry, seq = token.entry, token.seq
    end = time.monotonic() + VERDICT_LIMIT
    while (worth := owner.claim_worth(entry, seq)) is Claim.OPEN and time.monotonic() < end:
        if owner.is_revoked(entry, seq):
            return False
        time.sleep(VERDICT_RECHECK)
    return worth is not Claim.LOST and not owner.is_revoked(entry, seq)
