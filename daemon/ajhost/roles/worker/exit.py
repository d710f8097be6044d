"""The exit of a worker's process: `atexit` runs, logs and streams are flushed, all within a limit.

Before that the worker drains (`drain.py`), which includes what handlers left running (`left_running.py`).
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from ajhost.adapters.linux.standard_streams import flush_streams
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
