"""Ends a worker whose loop never runs again and that no supervisor is left to kill.

A worker whose loop runs leaves by itself (`supervisor_gone.py`). A supervisor kills one that hangs past a deadline.
Without either, native code may hold the interpreter's lock, so that no Python code runs. `faulthandler` watches from
a C thread that needs no lock, writes the stacks, and exits.
"""

from __future__ import annotations

import faulthandler
import time

from ajhost.core.timings import WATCHDOG_LATE, WATCHDOG_SLACK

_STDERR = 2


class Watchdog:
    """`horizon`: the monotonic time up to which deadlines are covered. `extend` it for a later one."""

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
