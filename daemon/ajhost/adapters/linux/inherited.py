"""What a process inherits from its launcher and cannot work with: closed streams, signals that are ignored or blocked.

A service manager sets these right. A shell, a cron job, or a launcher written in another language may not.
"""

from __future__ import annotations

import contextlib
import os
import signal
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


def reset_signals() -> None:
    """Gives every signal its default action and its way in.

    With SIGCHLD ignored the kernel tells nobody how a child has ended. A blocked SIGTERM stops nothing.
    """
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
