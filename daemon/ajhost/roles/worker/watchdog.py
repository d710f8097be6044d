"""A dead man's switch: a process whose loop never runs again ends by itself, whoever else is gone.

The supervisor kills a worker that hangs past a deadline. Should the supervisor be dead too, no Python code of ours may
ever run: native code can hold the interpreter's lock. `faulthandler` watches from a C thread that needs no lock, writes
the stacks, and exits.
"""

from __future__ import annotations

import faulthandler
import time

from ajhost.core.timings import WATCHDOG_LATE, WATCHDOG_SLACK

_STDERR = 2


class Watchdog:
    """`horizon`: the monotonic time up to which deadlines are covered; `extend` when a later one begins."""

    def __init__(self, kill_grace: float) -> None:
        self._after = kill_grace + WATCHDOG_LATE
        self.horizon = 0.0

    def extend(self, deadline: float) -> None:
        """Covers a deadline (monotonic seconds)."""
        now = time.monotonic()
        self.horizon = max(self.horizon, deadline + WATCHDOG_SLACK)
        faulthandler.dump_traceback_later(self.horizon + self._after - now, exit=True, file=_STDERR)

    def beat(self) -> None:
        """The loop runs: moves the switch on before it is near."""
        now = time.monotonic()
        if self.horizon < now + WATCHDOG_SLACK / 2:
            self.extend(now + WATCHDOG_SLACK)
