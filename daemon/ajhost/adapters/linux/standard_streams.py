"""The standard streams: opened where a launcher has closed them, flushed whatever an application has made of them."""

from __future__ import annotations

import contextlib
import os
import sys


def open_streams() -> None:
    """Opens the standard streams that are closed. Call it before anything else is imported.

    A descriptor below 3 that is closed is the next file's that is opened, and what is written to stderr would end up in
    it. Libraries open files as they are imported: libffi keeps itself open.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def flush_streams() -> None:
    """Writes what stdout and stderr hold back, whatever an application has put in their place. Raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
