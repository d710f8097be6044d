"""A worker whose supervisor is dead: it serves on until the next start does, or for `ORPHAN_GRACE`, and leaves. A
watchdog in C ends it if its loop never runs again.

It cannot leave then: native code may hold the interpreter's lock, so that no Python code runs, and nobody kills it.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import time

from ajhost.core.timings import ORPHAN_GRACE, WATCHDOG_LATE, WATCHDOG_SLACK

_log = logging.getLogger("ajhost.worker")
_STDERR = 2


class Ending:
    """The end of a worker: the orders about it, by its supervisor, or by the worker itself when that is dead."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        """Leave the queue group."""
        self.finish = asyncio.Event()
        """End as soon as nothing is held."""
        self.hurry = asyncio.Event()
        """End at once."""
        self.alone = False
        """Whether the supervisor is dead: its end of the channel is closed."""
        self.grace = ORPHAN_GRACE
        """Seconds until a worker that is alone leaves. 0 once it has asked to be replaced: it leaves at once, as the
        next start serves.
        """

    def leave_and_finish(self) -> None:
        """Orders a worker to end that has neither a supervisor nor a replacement to wait for."""
        self.finish.set()
        self.leave.set()

    def channel_closed(self) -> None:
        """Takes note that the channel to the supervisor has ended. The worker leaves when the grace is over."""
        self.alone = True
        _log.error("the supervisor is gone: finishing what is held")
        asyncio.get_running_loop().call_later(self.grace, self.leave_and_finish)


class Watchdog:
    """A timer of `faulthandler`, whose thread in C needs no lock: it writes the stacks, and exits.

    `horizon`: the monotonic time up to which deadlines are covered. `extend` it for a later one.
    """

    def __init__(self, kill_grace: float) -> None:
        self._after = kill_grace + WATCHDOG_LATE
        self.horizon = 0.0

    def extend(self, deadline: float) -> None:
        """Covers a deadline (monotonic seconds)."""
        now = time.monotonic()
        self.horizon = max(self.horizon, deadline + WATCHDOG_SLACK)
        faulthandler.dump_traceback_later(self.horizon + self._after - now, exit=True, file=_STDERR)

    def beat(self) -> None:
        """Sets the timer anew before it expires. Called at each heartbeat, and so only while the loop runs."""
        now = time.monotonic()
        if self.horizon < now + WATCHDOG_SLACK / 2:
            self.extend(now + WATCHDOG_SLACK)
