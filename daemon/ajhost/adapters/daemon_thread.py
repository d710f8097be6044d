"""Threads of the host's own beside an application."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def start_daemon_thread(work: Callable[..., object], name: str, *args: object) -> None:
    """Starts one.

    An application may have put None in the place of a hook to silence tracebacks, and threading starts no thread then.

    :raises RuntimeError: the system starts none.
    """
    for module in (sys, threading):
        if getattr(module, "excepthook", None) is None:
            vars(module)["excepthook"] = vars(module)["__excepthook__"]
    threading.Thread(target=work, args=args, name=name, daemon=True).start()
