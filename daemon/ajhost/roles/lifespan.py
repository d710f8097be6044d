"""The lifespan of a worker: what may be one, and how a worker enters it before it joins the queue group and leaves it
after its last reply, within `start_timeout` and `stop_timeout`. (`worker/intake.py` makes `task.state` of what it
yields.)

    async def lifespan(worker: Worker):
        async with httpx.AsyncClient() as http:
            yield State(http)

A lifespan is an async or plain generator function, or a function that returns a context manager of either kind. The
worker holds no request while it enters or leaves it, so an `async` lifespan may block the loop (it loads a model): a
thread writes the heartbeat until the lifespan's own limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from ajhost import api
from ajhost.adapters.own_code import is_library
from ajhost.adapters.threads import start_daemon_thread
from ajhost.core.timings import HEARTBEAT_INTERVAL, POLL_INTERVAL
from ajhost.roles.binding import Unfit, takes
from ajhost.settings.sections import PythonSettings

_log = logging.getLogger("ajhost.worker")
_THREAD = "lifespan"
"""The beginning of the name of a plain lifespan's thread."""
Manager = contextlib.AbstractAsyncContextManager[Any]
Lifespan = Callable[[api.Worker], Any]


def check_lifespan(name: str, function: Any) -> Lifespan:
    """:raises Unfit: it cannot be called with a worker."""
    if not callable(function):
        raise Unfit(f"{name} is a {type(function).__name__}, which cannot be called")
    if inspect.iscoroutinefunction(function):
        raise Unfit(f"{name} returns a coroutine: a lifespan has a `yield`, or returns a context manager")
    if not takes(function, 1):
        raise Unfit(f"{name} cannot be called with one argument, the Worker")
    found: Lifespan = function
    return found


def manager_of(name: str, lifespan: Lifespan, worker: api.Worker) -> Manager:
    """Returns the context manager of a lifespan; a plain one is entered and left in a thread of its own.

    :raises Unfit: it returned something else.
    """
    manager = lifespan(worker)
    if inspect.isasyncgen(manager):
        manager = contextlib.asynccontextmanager(lambda: manager)()
    elif inspect.isgenerator(manager):
        manager = contextlib.contextmanager(lambda: manager)()
    kind = type(manager)
    if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
        found: Manager = manager
        return found
    if hasattr(kind, "__enter__") and hasattr(kind, "__exit__"):
        return _InThread(manager)
    raise Unfit(f"{name} returned a {kind.__name__}, which is no context manager")


class _InThread(contextlib.AbstractAsyncContextManager[Any]):
    """A plain context manager: it may block, and the thread that entered it leaves it."""

    def __init__(self, manager: contextlib.AbstractContextManager[Any]) -> None:
        self._manager = manager
        self._thread = ThreadPoolExecutor(1, _THREAD)

    async def __aenter__(self) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._manager.__enter__)

    async def __aexit__(self, *error: Any) -> bool | None:
        result = await asyncio.get_running_loop().run_in_executor(self._thread, self._manager.__exit__, *error)
        self._thread.shutdown(wait=False)
        return result


class LifespanFailed(Exception):
    """The lifespan could not be entered; the text says why."""


class LifespanRunner:
    """The lifespan, entered and left in one task, as task groups need it. Calls `on_end` if it ends by itself."""

    def __init__(
        self,
        name: str,
        lifespan: Lifespan,
        python: PythonSettings,
        worker: api.Worker,
        on_end: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        """`beat` writes the heartbeat, and is called by a thread."""
        self._name, self._lifespan, self._python, self._worker = name, lifespan, python, worker
        self._on_end, self._beat = on_end, beat
        self._entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._task: asyncio.Task[BaseException | None] | None = None
        self._cut_at = ""

    async def enter(self) -> Any:
        """Enters it, and returns what it yields. :raises LifespanFailed: it raised, or took too long."""
        self._task = task = asyncio.create_task(self._live(), name="lifespan")
        limit = self._python.start_timeout
        with self._beating(limit):
            await asyncio.wait({self._entered, task}, timeout=limit, return_when="FIRST_COMPLETED")
        if self._entered.done():
            return self._entered.result()
        if not task.done():
            where = await self._cut(task)
            raise LifespanFailed(f"python.lifespan: {self._name} took more than {limit:g} s{where}")
        error = asyncio.CancelledError() if task.cancelled() else task.result()
        assert error is not None
        raise LifespanFailed(f"python.lifespan: {self._name} raised {type(error).__name__}: {error}") from error

    @contextlib.contextmanager
    def _beating(self, limit: float) -> Iterator[None]:
        over, end = threading.Event(), time.monotonic() + limit

        def beat() -> None:
            while not over.wait(HEARTBEAT_INTERVAL) and time.monotonic() < end:
                self._beat()

        start_daemon_thread(beat, "ajhost lifespan beat")
        try:
            yield
        finally:
            over.set()

    async def _live(self) -> BaseException | None:
        """Returns what the lifespan raised: `SystemExit` or `KeyboardInterrupt` raised by a task would end the loop."""
        try:
            async with manager_of(self._name, self._lifespan, self._worker) as state:
                self._entered.set_result(state)
                try:
                    await self._leave.wait()
                finally:
                    if not self._leave.is_set():
                        _log.error("python.lifespan: %s has ended before its worker", self._name)
                        self._on_end()
        except asyncio.CancelledError as error:
            self._cut_at = _place(reversed(list(traceback.walk_tb(error.__traceback__)))) or self._cut_at
            raise
        except BaseException as error:
            return error
        return None

    async def _cut(self, task: asyncio.Task[BaseException | None]) -> str:
        """Cancels it, and returns the line where it was; empty if that is not known."""
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if thread.name.startswith(_THREAD) and (frame := frames.get(thread.ident or 0)) is not None:
                self._cut_at = _place(traceback.walk_stack(frame))
        task.cancel()
        await asyncio.wait({task}, timeout=POLL_INTERVAL)
        return self._cut_at

    async def exit(self) -> None:
        """Leaves it, within the stop timeout. Raises nothing."""
        task = self._task
        if task is None:
            return
        self._leave.set()
        if not self._entered.done():
            task.cancel()
        limit = self._python.stop_timeout
        with self._beating(limit):
            await asyncio.wait({task}, timeout=limit)
        if not task.done():
            where = await self._cut(task)
            _log.error("python.lifespan: %s did not end within %g s%s", self._name, limit, where)
        elif not task.cancelled() and (error := task.result()) is not None:
            _log.error("python.lifespan: %s raised at its end", self._name, exc_info=error)


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Returns the innermost line of the application; `frames` begin with the innermost."""
    for frame, line in frames:
        if not is_library(frame.f_code.co_filename):
            return f", in line {line} of {frame.f_code.co_filename}"
    return ""
