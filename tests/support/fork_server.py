"""Forks `ajhost` commands out of a process that has imported the program (`tests/support/forked.py` starts it).

It reads orders from a socket, each with four descriptors: the end of a pipe for what becomes of the process, and its
standard streams. A keeper, a process of its own, waits for the command. What it writes to the pipe is `Progress`.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import pkgutil
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

PROGRESS = struct.Struct("ii")
"""The process id and 0, then the process id and its wait status."""
_MAX_ORDER = 1 << 17


class Order(NamedTuple):
    """A command of `ajhost` and what surrounds it; a tuple on its way."""

    arguments: Sequence[str]
    env: dict[bytes, bytes]
    directory: str
    new_session: bool


def _import_all() -> None:
    """Everything that a command may import: the host's roles, the commands, and what they import when they run."""
    for package in ("ajhost.cli", "ajhost.settings", "ajhost.adapters", "ajhost.roles.supervisor"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(module.name)
    importlib.import_module("ajhost.roles.start_rehearsal")
    # it finds the place of a title by the environment, which must be the first one then
    importlib.import_module("setproctitle").getproctitle()
    gc.freeze()  # a command's end would look through all of it


def _become(order: Order, streams: Sequence[int]) -> None:
    """Makes of this process what an interpreter would be that was started for this command."""
    if order.new_session:
        os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(order.directory)
    os.environb.clear()
    os.environb.update(order.env)
    sys.path.insert(0, order.directory)
    sys.argv[:] = [f"{os.path.dirname(sys.modules['ajhost'].__file__ or '')}/__main__.py", *order.arguments]


def serve(orders: socket.socket) -> None:
    """Serves until the other end is closed. In a process that is a command it raises SystemExit, as `main` does."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, _MAX_ORDER, 8)
        if not data:
            return
        if os.fork() == 0:
            orders.close()
            _keep(Order(*pickle.loads(data)), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(order: Order, descriptors: Sequence[int]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    progress, *streams = descriptors
    if (pid := os.fork()) == 0:
        _become(order, streams)
        from ajhost.cli.main import main

        main(order.arguments)
    for stream in streams:
        os.close(stream)
    os.write(progress, PROGRESS.pack(pid, 0))
    _, status = os.waitpid(pid, 0)
    os.write(progress, PROGRESS.pack(pid, status))
    os._exit(0)


if __name__ == "__main__":
    del sys.path[0]  # modules beside this one have names of libraries
    _import_all()
    serve(socket.socket(fileno=int(sys.argv[1])))
