"""Starts threads of the host beside an application's code, and has the calls of threads made on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from ajhost.adapters.linux.descriptors import moved_far

_T = TypeVar("_T")


def start_daemon_thread(work: Callable[..., object], name: str, *args: object) -> None:
    """Starts a daemon thread.

    Restores a hook first that an application has set to None to silence tracebacks: threading starts no thread then.

    :raises RuntimeError: when the system starts no thread.
    """
    for module in (sys, threading):
        if getattr(module, "excepthook", None) is None:
            vars(module)["excepthook"] = vars(module)["__excepthook__"]
    threading.Thread(target=work, args=args, name=name, daemon=True).start()


def call_in_thread(function: Callable[..., _T], *args: object) -> asyncio.Future[_T]:
    """Calls a function that may block in a daemon thread of its own, which ends when the function returns.

    :raises OSError: when no thread can be started.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(settle_with: Callable[..., None], found: object) -> None:
        if not future.done():
            settle_with(found)

    def run() -> None:
        try:
            found: tuple[Callable[..., None], object] = future.set_result, function(*args)
        except BaseException as error:
            found = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *found)

    try:
        start_daemon_thread(run, f"ajhost {function.__name__}")
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be started") from error
    return future


class ThreadCalls:
    """Has calls of threads made on the loop, as `call_soon_threadsafe` does.

    For one such call uvloop takes the interpreter's lock three times: to wake up, for the turn that makes the call, and
    for one more in which the replies are written. While another thread computes, each wait for the lock lasts a switch
    interval. Here the loop takes it once for all the calls that are due.

    `flush_after(work)` must call `work`, which makes the calls; it may then send what they have queued.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, flush_after: Callable[[Callable[[], None]], None]) -> None:
        self._loop = loop
        self._flush_after = flush_after
        self._due: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._event = moved_far(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        # not closed with the loop: a thread that outlives it would write to a descriptor that is another file's
        weakref.finalize(self, os.close, self._event)
        loop.add_reader(self._event, self._woken)

    def fileno(self) -> int:
        """Returns the descriptor by which threads wake the loop."""
        return self._event

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
