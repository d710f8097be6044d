"""Handlers that speak in every way there is."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import time

from ajhost import Task

_log = logging.getLogger("acme.prints")
_C = ctypes.CDLL(None)


async def speak(task: Task) -> int:
    """Says the payload by print, by logging, with a traceback, in C, and through a child. Returns its pid."""
    word = task.payload.decode()
    print(f"{word} printed")
    print(f"{word} to stderr", file=sys.stderr)
    _log.warning("%s logged", word)
    try:
        raise ValueError(word)
    except ValueError:
        _log.exception("%s failed", word)
    _C.dprintf(2, f"{word} in C\n".encode())
    await asyncio.to_thread(subprocess.run, ["/bin/echo", f"{word} by a child"], check=True)
    return os.getpid()


def speak_in_thread(task: Task) -> int:
    """Prints and logs from a thread."""
    print(f"{task.payload.decode()} printed in a thread")
    _log.info("%s logged in a thread", task.payload.decode())
    return os.getpid()


async def flood(task: Task) -> float:
    """Prints and logs as many lines as the payload says; the seconds that it took."""
    began = time.monotonic()
    for number in range(int(task.payload)):
        print("printed", number)
        _log.info("logged %d", number)
    return time.monotonic() - began


async def environment(task: Task) -> dict[str, object]:
    """What a handler's process has of the service manager, and what of the credentials it can read."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return {
        "environment": dict(os.environ),
        "credentials": sorted(os.listdir(directory)) if directory else [],
    }
