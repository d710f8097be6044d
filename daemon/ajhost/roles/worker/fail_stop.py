"""Ends a worker when an exception of user code interrupts the host's own code.

A signal handler of the application runs between any two instructions of the main thread, and may raise in the middle of
a step of the ledger, the loop or the executor. What such a step has left undone is not known. So the worker ends at
once, as if it had been killed: the supervisor answers what had started, and other workers run the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from ajhost.adapters.own_code import PACKAGE

_log = logging.getLogger("ajhost.worker")
STATUS = 70
"""Exit status (`EX_SOFTWARE` of sysexits.h)."""


def fail(error: BaseException | None, what: str) -> NoReturn:
    """Logs the reason, and ends the process."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no signal handler may interrupt this
        _log.critical("%s: this worker ends, others take over its tasks", what, exc_info=error)
    finally:
        os._exit(STATUS)


def is_in_host_code(error: BaseException) -> bool:
    """Whether an exception was raised in a callback or a task of the host itself."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.isabs(file):  # uvloop's frames have relative names
            return file.startswith(PACKAGE)
        trace = trace.tb_next
    return False


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
        if isinstance(error, BaseException) and is_in_host_code(error):
            fail(error, "an exception in the host's own code")
        if self._other is not None:
            self._other(loop, context)
        else:
            loop.default_exception_handler(context)
