"""Forks `ajhost` commands out of a process that has imported the program (`forked_commands.py` starts it).

It reads orders from a socket, each with four descriptors: the end of a pipe for what becomes of the process, and its
standard streams. What it writes to the pipe is `PROGRESS`. When the tests' process ends, killed or not, so do the
commands that still run.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import os
import pickle
import pkgutil
import selectors
import signal
import socket
import struct
import sys
import termios
import threading
from collections.abc import Sequence
from typing import NamedTuple

PROGRESS = struct.Struct("ii")
"""The process id and 0, then the process id and its wait status."""
_MAX_ORDER = 1 << 17
_PATIENCE = 10.0
"""Seconds that a command has for its end when the tests have ended."""


class Order(NamedTuple):
    """A command of `ajhost` and what surrounds it; a tuple on its way."""

    arguments: Sequence[str]
    env: dict[bytes, bytes]
    directory: str
    new_session: bool
    terminal: bool
    """The standard streams are a terminal, which controls it."""


def _import_all() -> None:
    """Everything that a command may import: the host's roles, the commands, and what they import when they run."""
    gc.disable()  # it would walk through all of it, and find nothing
    for package in ("ajhost.cli", "ajhost.settings", "ajhost.adapters", "ajhost.roles.supervisor"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    importlib.import_module("ajhost.roles.start_rehearsal")
    # it finds the place of a title by the environment, which must be the first one then
    importlib.import_module("setproctitle").getproctitle()
    gc.freeze()  # a command's end would look through all of it
    gc.enable()


def _become(order: Order, streams: Sequence[int]) -> None:
    """Makes of this process what an interpreter would be that was started for this command."""
    if order.new_session:
        os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    if order.terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
            setattr(sys, name, os.fdopen(number, mode, closefd=False))  # which writes lines as they end, then
    os.chdir(order.directory)
    os.environb.clear()
    os.environb.update(order.env)
    sys.path.insert(0, order.directory)
    sys.argv[:] = [f"{os.path.dirname(sys.modules['ajhost'].__file__ or '')}/__main__.py", *order.arguments]


def _run(order: Order, streams: Sequence[int]) -> None:
    """Is the command to its end, and raises what `main` does."""
    _become(order, streams)
    from ajhost.cli.main import main

    try:
        main(order.arguments)
    except SystemExit as end:
        status = 0 if end.code is None else end.code
        if isinstance(status, int):
            _end(status)
        raise


def _end(status: int) -> None:
    """Ends as an interpreter does, but for the modules, which it would take apart one by one, copying their pages."""
    threading._shutdown()  # type: ignore[attr-defined]  # in 3.11 to 3.13
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):  # which the interpreter tells in its own way
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Commands:
    """Those that run: the descriptor of each process, its id, and the pipe to whom it matters."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, tuple[int, int]] = {}

    def serve(self, orders: socket.socket) -> None:
        """Serves until the other end is closed. In a process that is a command it raises what `main` does."""
        self._selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not orders:
                    self._ended(key.fd)
                    continue
                data, descriptors, _, _ = socket.recv_fds(orders, _MAX_ORDER, 8)
                if not data:
                    self._selector.unregister(orders)
                    return
                self._start(Order(*pickle.loads(data)), *descriptors)

    def _start(self, order: Order, progress: int, *streams: int) -> None:
        if (pid := os.fork()) == 0:
            _run(order, streams)
        for stream in streams:
            os.close(stream)
        process = os.pidfd_open(pid)
        self._running[process] = pid, progress
        self._selector.register(process, selectors.EVENT_READ)
        _tell(progress, pid, 0)

    def _ended(self, process: int) -> None:
        self._selector.unregister(process)
        os.close(process)
        pid, progress = self._running.pop(process)
        _, status = os.waitpid(pid, 0)
        _tell(progress, pid, status)
        os.close(progress)

    def stop(self) -> None:
        """SIGTERM twice, which hurries a host; SIGKILL for what has not ended then."""
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGTERM):
            for process in self._running:
                signal.pidfd_send_signal(process, number)
        while self._running and (ended := self._selector.select(_PATIENCE)):
            for key, _ in ended:
                self._ended(key.fd)
        for process in self._running:
            signal.pidfd_send_signal(process, signal.SIGKILL)


def _tell(progress: int, pid: int, status: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(progress, PROGRESS.pack(pid, status))


if __name__ == "__main__":
    del sys.path[0]  # modules beside this one have names of libraries
    _import_all()
    commands = _Commands()
    commands.serve(socket.socket(fileno=int(sys.argv[1])))
    commands.stop()
