"""Calls that threads ask for and the loop makes.

As `call_soon_threadsafe`, for which uvloop takes the interpreter's lock three times: when it wakes, for the turn in
which the call is made, and for one more in which what that queued is written. While another thread computes, each time
is a wait of a switch interval. Here it is once for all the calls that are due.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable


class ThreadCalls:
    """`flush_after(work)` has to call `work`, which makes the calls that are due; what they queued may leave after
    it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, flush_after: Callable[[Callable[[], None]], None]
    ) -> None:
        self._loop = loop
        self._flush_after = flush_after
        self._due: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # not with the loop: threads that outlive it may still write, and to nobody else's descriptor
        weakref.finalize(self, os.close, self._event)
        loop.add_reader(self._event, self._woken)

    def post(self, callback: Callable[..., None], *args: object) -> None:
        """Has `callback(*args)` called on the loop; in vain when that was closed. For threads."""
        self._due.append((callback, args))
        os.eventfd_write(self._event, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._event)  # before anything is taken: what is due later wakes us again
        self._flush_after(self._make)

    def _make(self) -> None:
        due = self._due
        while due:
            callback, args = due.popleft()
            try:
                callback(*args)
            except Exception as error:
                self._loop.call_exception_handler({"message": f"{callback} failed", "exception": error})
