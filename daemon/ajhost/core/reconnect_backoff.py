"""How long a connection waits before it tries a server again: quickly, or slowly where the server locks it out."""

from __future__ import annotations

from dataclasses import dataclass

from ajhost.core.timings import LOCKED_OUT_RETRY_FIRST, LOCKED_OUT_RETRY_LONGEST, RETRY_FIRST, RETRY_LONGEST
from ajhost.ledger.connection_status import Reason


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses (s) before a server is tried again: from `first` on, each `growth` times as long, up to `most`."""

    first: float
    growth: float
    most: float

    def pause(self, failures: int, share: float) -> float:
        """The pause after so many failures in a row (at least 1). `share`, 0 to 1, is the jitter: half to whole."""
        whole = min(self.first * self.growth ** min(failures - 1, 50), self.most)
        return whole * (0.5 + 0.5 * share)


QUICK = Backoff(RETRY_FIRST, 1.3, RETRY_LONGEST)
SLOW = Backoff(LOCKED_OUT_RETRY_FIRST, 2.0, LOCKED_OUT_RETRY_LONGEST)

LOCKS_OUT = frozenset((Reason.TLS, Reason.AUTHORIZATION, Reason.PERMISSION, Reason.LIMIT, Reason.CREDENTIALS))
"""The reasons that only somebody's action ends: the connection is LOCKED_OUT. For all others it is WAITING."""

BACKOFF: dict[Reason, Backoff] = {reason: SLOW if reason in LOCKS_OUT else QUICK for reason in Reason}
"""By reason. Who is locked out also waits for its turn among the processes of the host (`core/login_gate.py`)."""
