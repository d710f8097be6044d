"""A worker whose supervisor is dead: it serves on until the next start does, or for `ORPHAN_GRACE`, and leaves."""

from __future__ import annotations

import asyncio
import logging

from ajhost.core.timings import ORPHAN_GRACE

_log = logging.getLogger("ajhost.worker")


class Ending:
    """What a worker was told about its end, by its supervisor, or by nobody when that is dead."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        """Leave the queue group."""
        self.finish = asyncio.Event()
        """End as soon as nothing is held."""
        self.hurry = asyncio.Event()
        """End at once."""

    def leave_and_finish(self) -> None:
        """What becomes of a worker that stops with nobody else to wait for."""
        self.finish.set()
        self.leave.set()


class Orphaned:
    """`alone`: nobody is at the channel's other end."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.alone = False
        self.grace = ORPHAN_GRACE
        """0 for a worker that is to leave anyway: it does so at once, as the next start serves."""

    def channel_closed(self) -> None:
        """The channel has ended."""
        self.alone = True
        _log.error("the supervisor is gone: finishing what is held")
        asyncio.get_running_loop().call_later(self.grace, self.ending.leave_and_finish)
