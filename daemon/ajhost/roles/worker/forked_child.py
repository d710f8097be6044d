"""A child that a handler forks, and that comes back from the handler: it ends there, as a script does at its end.

`os.fork()`, and `sys.exit(0)` in the child, is how it is written everywhere. But the child is a copy of the worker: it
would answer the task first, and then serve on the worker's own connection and ledger, beside it.
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
"""Whether this process is such a child."""
_loop: asyncio.AbstractEventLoop | None = None
_loop_thread = 0


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """From now on a child that comes back to this loop, which runs in this thread, ends."""
    global _loop, _loop_thread
    _loop, _loop_thread = loop, threading.get_ident()


def note() -> None:
    """This process is such a child. Call it while signals are blocked: what an at-fork function raises is ignored."""
    global here
    here = True
    if _loop is not None and threading.get_ident() == _loop_thread:
        _loop.call_soon(came_back)  # of a handler that awaits in the child, the loop must not go on either


def came_back(error: BaseException | None = None) -> NoReturn:
    """Ends this process: with the status of `sys.exit`, 1 after another exception, which it prints, or 0."""
    status = 0 if error is None else 1
    try:
        if isinstance(error, SystemExit):
            code = error.code
            status = code & 0xFF if isinstance(code, int) else int(code is not None)
        elif error is None:
            _log.warning(
                "a child that a handler forked came back from the handler: it is ended; os._exit() ends it"
            )
        else:
            traceback.print_exception(error)
        flush_streams()
    finally:
        os._exit(status)
