"""A worker whose supervisor is dead: it serves on until the next start does, or for `ORPHAN_GRACE`, and leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ajhost.core.timings import ORPHAN_GRACE

_log = logging.getLogger("ajhost.worker")


class Orphaned:
    """`alone`: nobody is at the channel's other end. `leave` ends the worker when it has finished what it holds."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self.leave = leave
        self.alone = False

    def channel_closed(self, *, asked_to_retire: bool) -> None:
        """The channel has ended. A worker that is to leave anyway does so at once: the next start serves."""
        self.alone = True
        _log.error("the supervisor is gone: finishing what is held")
        grace = 0.0 if asked_to_retire else ORPHAN_GRACE
        asyncio.get_running_loop().call_later(grace, self.leave)
