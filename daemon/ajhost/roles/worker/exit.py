"""The exit of a worker's process: in order after its drain (`drain.py`), with `atexit` and flushed logs within a limit,
or at once when nobody knows what state it is in: an exception of user code, say, has interrupted the host's own.

A signal handler of the application runs between any two instructions of the main thread, and may raise in the middle of
a step of the ledger, the loop or the executor. What such a step has left undone is not known. So the worker ends as if
it had been killed: the supervisor answers what had started, and other workers run the rest.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ajhost.adapters.linux.standard_streams import flush_streams
from ajhost.adapters.own_code import PACKAGE
from ajhost.adapters.threads import start_daemon_thread
from ajhost.core.timings import EXIT_LIMIT, HEARTBEAT_INTERVAL

_log = logging.getLogger("ajhost.worker")
_STDERR = 2


def finish(status: int, beat: Callable[[], None]) -> NoReturn:
    """Runs `atexit`, flushes logs and streams, and ends the process: within the limit, whatever they do.

    `beat` is called meanwhile, by a thread, since the loop runs no more.
    """
    # for the case that no Python code runs any more
    faulthandler.dump_traceback_later(EXIT_LIMIT + 1.0, exit=True, file=_STDERR)
    start_daemon_thread(_bound, "ajhost end", status, beat)
    try:
        atexit._run_exitfuncs()
        logging.shutdown()
        flush_streams()
    finally:
        os._exit(status)


def _bound(status: int, beat: Callable[[], None]) -> None:
    end = time.monotonic() + EXIT_LIMIT
    while time.monotonic() < end:
        beat()
        time.sleep(HEARTBEAT_INTERVAL)
    stack = sys._current_frames().get(threading.main_thread().ident or 0)
    where = f"{stack.f_code.co_filename}:{stack.f_lineno}, in {stack.f_code.co_name}" if stack is not None else "?"
    _log.error("what atexit runs did not end within %g s: cut at %s", EXIT_LIMIT, where)
    os._exit(status)


def fail(error: BaseException | None, what: str) -> NoReturn:
    """Logs the reason, and ends the process."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no signal handler may interrupt this
        _log.critical("%s: this worker ends, others take over its tasks", what, exc_info=error)
    finally:
        os._exit(os.EX_SOFTWARE)


def _is_in_host_code(error: BaseException) -> bool:
    """Whether an exception was raised in a callback or a task of the host itself."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    # uvloop's frames have relative names
    return next((file.startswith(PACKAGE) for file in files if os.path.isabs(file)), False)


class ExceptionGuard:
    """The loop's exception handler. One that the application sets gets the exceptions that are not the host's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._other: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._handler = self._handle
        loop.set_exception_handler(self._handler)

    def keep(self) -> None:
        """Puts this handler in front again if the application has set its own. Call it about once a second."""
        current = self._loop.get_exception_handler()
        if current is not self._handler:
            self._other = current
            self._loop.set_exception_handler(self._handler)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and _is_in_host_code(error):
            fail(error, "an exception in the host's own code")
        if self._other is not None:
            self._other(loop, context)
        else:
            loop.default_exception_handler(context)
