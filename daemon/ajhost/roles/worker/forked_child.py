"""Ends a child that a handler forks and that returns from the handler, as a script ends after its last line.

Handlers commonly call `os.fork()`, and `sys.exit(0)` in the child. The child is a copy of the worker: it would answer
the task, and then serve on the worker's own connection and ledger.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import traceback
from typing import NoReturn

from ajhost.adapters.linux.standard_streams import flush_streams

_log = logging.getLogger("ajhost.worker")
here = False
"""Whether this process is a child that a handler forked."""
_loop: asyncio.AbstractEventLoop | None = None
_loop_thread = 0


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Takes note of the loop, which runs in this thread. A forked child that returns to it ends."""
    global _loop, _loop_thread
    _loop, _loop_thread = loop, threading.get_ident()


def note() -> None:
    """Marks this process as a forked child. Signals must be blocked: Python ignores what at-fork functions raise."""
    global here
    here = True
    if _loop is not None and threading.get_ident() == _loop_thread:
        _loop.call_soon(came_back)  # a handler that awaits in the child must not keep the loop running there


def came_back(error: BaseException | None = None) -> NoReturn:
    """Ends this process: with the status of `sys.exit`, 1 after another exception, which it prints, or 0."""
    status = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit):
            code = error.code
            status = code & 0xFF if isinstance(code, int) else int(code is not None)
        elif error is None:
            _log.warning("a child that a handler forked came back from the handler: it is ended; os._exit() ends it")
        else:
            traceback.print_exception(error)
        flush_streams()
    finally:
        os._exit(status)
