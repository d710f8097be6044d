"""Starts threads of the host in a process that runs an application's code."""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

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

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args)
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed

    try:
        start_daemon_thread(run, f"ajhost {function.__name__}")
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be started") from error
    return future
