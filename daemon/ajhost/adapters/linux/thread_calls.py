"""Lets threads have calls made on the loop, as `call_soon_threadsafe` does.

For one such call uvloop takes the interpreter's lock three times: to wake up, for the turn that makes the call, and for
one more in which the replies are written. While another thread computes, each wait for the lock lasts a switch
interval. Here the loop takes it once for all the calls that are due.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable


class ThreadCalls:
    """The calls that are due. `flush_after(work)` must call `work`, which makes them; it may then send what they have
    queued."""

    def __init__(self, loop: asyncio.AbstractEventLoop, flush_after: Callable[[Callable[[], None]], None]) -> None:
        self._loop = loop
        self._flush_after = flush_after
        self._due: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # not closed with the loop: a thread that outlives it would write to a descriptor that is another file's
        weakref.finalize(self, os.close, self._event)
        loop.add_reader(self._event, self._woken)

    def post(self, callback: Callable[..., None], *args: object) -> None:
        """Has `callback(*args)` called on the loop, unless that is closed. For threads."""
        self._due.append((callback, args))
        os.eventfd_write(self._event, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._event)  # first: a call that is posted from now on wakes the loop again
        self._flush_after(self._make)

    def _make(self) -> None:
        due = self._due
        while due:
            callback, args = due.popleft()
            try:
                callback(*args)
            except Exception as error:
                self._loop.call_exception_handler({"message": f"{callback} failed", "exception": error})
