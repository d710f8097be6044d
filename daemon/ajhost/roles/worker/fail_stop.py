"""Ends a worker whose own code was interrupted by an exception that is not its own.

A signal handler of the application's runs between any two instructions of the main thread, and may raise there: in the
middle of a step that the ledger, the loop or the executor relies on. Nobody can tell what such a step has left undone.
So the worker ends at once, as if it had been killed: the supervisor answers what had started, and runs the rest on
other workers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import ajhost

_log = logging.getLogger("ajhost.worker")
STATUS = 70
"""Exit status (`EX_SOFTWARE` of sysexits.h)."""
_PACKAGE = f"{Path(ajhost.__file__).parent}/"


def fail(error: BaseException | None, what: str) -> NoReturn:
    """Says why, and ends the process."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # nothing interrupts this
        _log.critical("%s: this worker ends, others take over its tasks", what, exc_info=error)
    finally:
        os._exit(STATUS)


def is_in_host_code(error: BaseException) -> bool:
    """Whether an exception came out of a callback or a task of the host's own: whether it began in one."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if os.path.isabs(file):  # uvloop's frames have relative names
            return file.startswith(_PACKAGE)
        trace = trace.tb_next
    return False


class ExceptionGuard:
    """The loop's exception handler. The application may set its own, which then has what is not the host's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._other: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._handler = self._handle
        loop.set_exception_handler(self._handler)

    def keep(self) -> None:
        """Stands in front again if the application has set a handler of its own. Call it every now and then."""
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
