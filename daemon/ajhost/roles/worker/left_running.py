"""Waits for the tasks, timers and threads that handlers leave running when a worker ends, and logs those it cuts."""

from __future__ import annotations

import asyncio
import contextvars
import dis
import functools
import gc
import inspect
import logging
import queue
import sys
import threading
import traceback
from types import FrameType
from typing import Any

import uvloop.loop

from ajhost.adapters.logs.log_record import CURRENT_TASK
from ajhost.adapters.own_code import PACKAGE, is_library
from ajhost.core.timings import POLL_INTERVAL

_log = logging.getLogger("ajhost.worker")
_SHOWN = 5
_TIMER = vars(uvloop.loop)["TimerHandle"]
"""What `call_later` of a worker's loop returns."""


class LeftRunning:
    """Tasks and threads that handlers start and leave behind when they return."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """To be made before any handler runs: threads that exist already are the application's own."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._threads_before = set(threading.enumerate())
        loop.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        if CURRENT_TASK.get() is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    def _pending(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if not task.done() and not _is_own(task)]

    def _alive(self) -> list[threading.Thread]:
        frames = sys._current_frames()
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads_before and not thread.daemon and not _is_idle(thread, frames)
        ]

    async def wait(self, end: float, hurry: asyncio.Event) -> None:
        """Returns when they have ended, at `end` (the loop's clock) or at `hurry`; logs what it cuts.

        Timers that are set by now are waited for, too: once, if a timer sets itself anew.
        """
        loop = asyncio.get_running_loop()
        timers = _timers_of_handlers()
        while self._pending() or self._alive() or any(loop.time() <= timer.when() <= end for timer in _left(timers)):
            if loop.time() >= end or hurry.is_set():
                break
            await asyncio.sleep(POLL_INTERVAL)
        if tasks := self._pending():
            names = ", ".join(_name(task) for task in tasks[:_SHOWN])
            _log.warning("%d background tasks of handlers are cut: %s", len(tasks), names)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=POLL_INTERVAL)
        if cut := [timer for timer in _left(timers) if timer.when() > loop.time()]:
            names = ", ".join(f"{_callback(t)[1]} (in {t.when() - loop.time():.0f} s)" for t in cut[:_SHOWN])
            _log.warning("%d timers of handlers are cut: %s", len(cut), names)
        if threads := self._alive():
            names = ", ".join(thread.name for thread in threads[:_SHOWN])
            _log.warning("%d threads of handlers are cut: %s", len(threads), names)


def _timers_of_handlers() -> list[asyncio.TimerHandle]:
    """Returns the timers that handlers have set for functions of the application.

    uvloop keeps no list of them, the garbage collector does. Timers of libraries (a connection pool's, say) are left
    out: most are set anew for ever, and the application does not need the last.
    """
    return [each for each in gc.get_objects() if type(each) is _TIMER and _callback(each)[0]]


def _left(timers: list[asyncio.TimerHandle]) -> list[asyncio.TimerHandle]:
    return [timer for timer in timers if not timer.cancelled()]


def _callback(timer: asyncio.TimerHandle) -> tuple[bool, str]:
    """Returns whether a handler has set it for a function of the application, and that function's name."""
    function, ours = None, False
    for part in gc.get_referents(timer):
        if isinstance(part, contextvars.Context):
            ours = part.get(CURRENT_TASK) is not None
        elif function is None and callable(part):
            function = part
    while isinstance(function, functools.partial):
        function = function.func
    if function is None or not ours:
        return False, ""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:  # `print`, but not the method of a future that is written in C
        return inspect.ismodule(getattr(function, "__self__", None)), getattr(function, "__name__", "?")
    return not is_library(code.co_filename), function.__qualname__


def _is_own(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(PACKAGE)


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _is_idle(thread: threading.Thread, frames: dict[int, Any]) -> bool:
    """Whether it is a thread of a library's pool that waits for work: for the next item of a queue.

    So wait threads of `concurrent.futures`, of anyio (which stops them when the loop has ended), and of connections
    that are still open (aiosqlite). Their stacks have no frame of the application.
    """
    frame = frames.get(thread.ident or 0)
    if frame is None:
        return False
    stack = [each.f_code for each, _ in traceback.walk_stack(frame)]
    if not all(is_library(code.co_filename) for code in stack):
        return False
    # a `queue.Queue` waits in Python, a `SimpleQueue` in C
    return queue.Queue.get.__code__ in stack[:2] or _attribute_called(frame) == "get"


def _attribute_called(frame: FrameType) -> str:
    """Returns the name of the method that a frame calls: the last attribute that it has loaded."""
    names = [
        instruction.argval
        for instruction in dis.get_instructions(frame.f_code)
        if instruction.offset <= frame.f_lasti and instruction.opname in ("LOAD_METHOD", "LOAD_ATTR")
    ]
    return str(names[-1]) if names else ""
