"""The texts `overloaded: ...` of workers and the supervisor. `worker/intake.py` and `supervisor/standby.py` refuse: how
many requests wait tells `shared_queue/producer.py`, that there is no thread `worker/thread_pool.py`.
"""

from __future__ import annotations

from ajhost.protocol.reasons import FailureReason
from ajhost.roles.shared_queue.producer import Producer

_OVERLOADED = FailureReason.OVERLOADED
NO_ENTRY = _OVERLOADED.text("no room in the ledger")
"""The request's connection ended before an entry was free."""
NO_ROOM = _OVERLOADED.text("no room for a request of this size")
"""The frame store has no room for a request that must wait."""
TOO_MANY_TAKEN_OVER = _OVERLOADED.text("too many requests to take over at once")
"""The supervisor's ledger is full while it recovers those of a worker."""
UNTOLD = _OVERLOADED.text("the worker that refused it did not say so in time")
"""A worker had refused the request, and hangs since."""


def backlog_full(producer: Producer, backlog: int) -> str:
    """Returns why a request may not wait: `backlog` do. Empty if it may."""
    return _OVERLOADED.text(f"{backlog} requests wait already") if producer.full(backlog) else ""
