"""A worker whose supervisor is dead: it serves on until the next start does, or for `ORPHAN_GRACE`, and leaves."""

from __future__ import annotations

import asyncio
import logging

from ajhost.core.timings import ORPHAN_GRACE

_log = logging.getLogger("ajhost.worker")


class Ending:
    """The orders about a worker's end: by its supervisor, or by the worker itself when that is dead."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        """Leave the queue group."""
        self.finish = asyncio.Event()
        """End as soon as nothing is held."""
        self.hurry = asyncio.Event()
        """End at once."""

    def leave_and_finish(self) -> None:
        """Orders a worker to end that has neither a supervisor nor a replacement to wait for."""
        self.finish.set()
        self.leave.set()


class Orphaned:
    """The end of a worker without a supervisor. `alone`: the supervisor's end of the channel is closed."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.alone = False
        self.grace = ORPHAN_GRACE
        """Seconds until it leaves. 0 once it has asked to be replaced: it leaves at once, as the next start serves."""

    def channel_closed(self) -> None:
        """Takes note that the channel has ended. The worker leaves when the grace is over."""
        self.alone = True
        _log.error("the supervisor is gone: finishing what is held")
        asyncio.get_running_loop().call_later(self.grace, self.ending.leave_and_finish)
