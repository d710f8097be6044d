"""Finds functions that the host calls and that an import has replaced, as gevent's `monkey.patch_all` does."""

from __future__ import annotations

import _thread
import builtins
import os
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

_GREEN = ("gevent", "eventlet", "greenlet")
_CALLED: dict[str, tuple[object, str]] = {
    f"{module.__name__}.{name}": (module, name)
    for module, names in (
        (socket, ("socket", "socketpair", "getaddrinfo", "create_connection")),
        (select, ("select", "poll", "epoll")),
        (threading, ("Thread", "Lock", "RLock", "Event", "Condition", "current_thread", "get_ident")),
        (_thread, ("start_new_thread", "allocate_lock", "get_ident")),
        (time, ("sleep", "time", "time_ns", "monotonic", "monotonic_ns")),
        (os, ("fork", "read", "write", "waitpid", "_exit")),
        (signal, ("signal",)),
        (subprocess, ("Popen",)),
        (ssl, ("SSLContext",)),
        (builtins, ("open", "print")),
    )
    for name in names
    if hasattr(module, name)
}
"""Functions and classes that the host calls in the template or in a worker."""


class ReplacedFunctions:
    """Records the functions when it is made, before the imports; `changes` compares with them."""

    def __init__(self) -> None:
        self._before = {key: getattr(module, name) for key, (module, name) in _CALLED.items()}

    def changes(self) -> Iterator[tuple[str, str, bool]]:
        """Yields what is different now: the package that replaced it, one sentence, and whether no host can work so."""
        replaced: dict[str, list[str]] = {}
        for key, (module, name) in _CALLED.items():
            if (now := getattr(module, name, None)) is not self._before[key]:
                owner = getattr(now, "__module__", None) or type(now).__module__
                replaced.setdefault(str(owner).partition(".")[0], []).append(key)
        green = [key for owner, keys in replaced.items() if owner in _GREEN for key in keys]
        if green:
            owner = next(owner for owner in replaced if owner in _GREEN)
            text = (
                f"{owner} has replaced {_some(green)}: the host's event loop, threads and deadlines do not work on "
                f"greenlets. Do not patch at import; run what needs {owner} as a program of its own"
            )
            yield owner, text, True
        for owner, keys in replaced.items():
            if owner not in _GREEN:
                yield owner, f"{owner} has replaced {_some(keys)}, which the host calls too", False


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
