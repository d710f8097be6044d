"""Opens lifespans: async or plain generator functions, or functions that return a context manager of either kind.

async def lifespan(worker: Worker):
    async with httpx.AsyncClient() as http:
        yield State(http)
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from ajhost.api import Worker
from ajhost.roles.binding import Unfit, takes

LIFESPAN_THREAD = "lifespan"
"""The beginning of the name of a plain lifespan's thread."""
Manager = contextlib.AbstractAsyncContextManager[Any]
Lifespan = Callable[[Worker], Any]
"""A function of the worker: an async or plain generator function with one `yield`, or one that returns a context
manager of either kind."""


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


def manager_of(name: str, lifespan: Lifespan, worker: Worker) -> Manager:
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
        self._thread = ThreadPoolExecutor(1, LIFESPAN_THREAD)

    async def __aenter__(self) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._manager.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        leave = self._manager.__exit__
        result = await asyncio.get_running_loop().run_in_executor(self._thread, leave, kind, error, trace)
        self._thread.shutdown(wait=False)
        return result
