"""Signals in a worker: the host's handlers stay in place whatever user code sets, which is logged, and are absent in
forked children. SIGUSR2 writes the stacks of all threads from C, even when Python cannot run.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import asyncio
import contextlib
import faulthandler
import fcntl
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from ajhost.adapters.linux import signal_actions
from ajhost.adapters.linux.descriptors import closing, far_duplicate
from ajhost.roles.worker import forked_child
from ajhost.roles.worker.retirement import TERMINATED

_log = logging.getLogger("ajhost.worker")
_STDERR = 2
"""The descriptor: imports may have put anything in the place of `sys.stderr`."""

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None

_OURS = {
    signal.SIGTERM: "by it the host is told to stop",
    signal.SIGINT: "a terminal's Ctrl-C is the supervisor's",
    signal.SIGHUP: "a reload is the supervisor's",
    signal.SIGPIPE: "a connection that ends would end the worker",
}
"""The signals that the host handles through Python, and why they must stay."""
_CHILD = "by it the event loop knows that a sub-process has ended"
_FOREIGN = "if it raises while the host's own code runs, this worker ends"
_NEEDED = {*_OURS, signal.SIGCHLD, signal.SIGUSR2}
_named: set[int] = {*_NEEDED}
_valid = frozenset(map(int, signal.valid_signals()))

# the ones of `signal` raise and catch a ValueError for each handler (CPython, signal.py `_int_to_enum`)
_handler_of: Callable[[int], Handler] = _signal.getsignal
_blocked: Callable[[int, Iterable[int]], set[int]] = _signal.pthread_sigmask


def prepare() -> int:
    """Undoes what imports of user code have set. Call it before the loop is made. Returns `_stacks_on_signal()`."""
    faulthandler.enable(file=_STDERR)
    stacks = _stacks_on_signal()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        # an empty function and not SIG_IGN, which children of handlers would inherit through exec
        signal.signal(ignored, lambda *_: None)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_as_in_a_script)
    return stacks


def _stacks_on_signal() -> int:
    """Has SIGUSR2 append every thread's stack to a file in memory, from C, even when Python cannot run.

    Returns the file's descriptor. If no descriptor is free, the stacks go to stderr, and -1 is returned.
    """
    try:
        with closing(os.memfd_create("ajhost-stacks", os.MFD_CLOEXEC)) as low:
            fcntl.fcntl(low, fcntl.F_SETFL, os.O_APPEND)
            stacks = far_duplicate(low)
    except OSError:
        stacks = -1
    faulthandler.register(signal.SIGUSR2, file=_STDERR if stacks < 0 else stacks, all_threads=True, chain=False)
    return stacks


_masks = threading.local()


def _block() -> None:
    """Blocks signals around a fork, so that one that comes early is handled by the child's own handlers."""
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _as_in_a_script() -> None:
    """Gives a child that a handler forks (`multiprocessing`) the signal handlers of any script.

    With the worker's handlers SIGTERM would not end the child. The byte for it would reach the worker's loop through
    the wake-up descriptor, which both share, and the worker would leave in its place.
    """
    forked_child.note()
    with contextlib.suppress(ValueError):  # not in the main thread of the main interpreter
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    _unblock()
    with contextlib.suppress(ValueError):  # last: Python ignores what an at-fork function raises
        signal.signal(signal.SIGINT, signal.default_int_handler)


class SignalKeeper:
    """Puts back handlers that user code replaces, and logs it. `retire(why)`: the worker must be replaced."""

    def __init__(self, loop: asyncio.AbstractEventLoop, retire: Callable[[str], None]) -> None:
        loop.add_signal_handler(signal.SIGTERM, retire, TERMINATED)
        self._retire = retire
        ours = [(number, _handler_of(number)) for number in _OURS]
        self._ours: Iterator[tuple[signal.Signals, Handler]] = itertools.cycle(ours)
        self._python = signal_actions.handler_of(signal_actions.read(signal.SIGTERM))
        self._stacks = signal_actions.read(signal.SIGUSR2)
        self._child = signal_actions.read(signal.SIGCHLD)
        """The last kernel action for SIGCHLD that was not Python's: libuv's, once a sub-process was started."""

    def keep(self) -> None:
        """Checks the mask, the handlers of SIGCHLD and SIGUSR2, and one of the others in turn.

        Call it at each heartbeat. In turn, since a check of all took a third of a heartbeat's time.
        """
        if blocked := _blocked(signal.SIG_BLOCK, ()) & _NEEDED:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
            names = ", ".join(sorted(signal.Signals(number).name for number in blocked))
            _log.warning("the application has blocked %s: unblocked, the host needs them", names)
        number, handler = next(self._ours)
        current = _handler_of(number)
        if current is not handler and current != handler:
            signal.signal(number, handler)
            current = signal.Handlers(current) if isinstance(current, int) else current
            _log.warning("%s: put back: %s", _set_by_user(number, current), _OURS[number])
        action = signal_actions.read(signal.SIGCHLD)
        if signal_actions.handler_of(action) not in (signal_actions.NOTHING, self._python):
            self._child = action  # a sub-process was started since, and libuv's handler is in place
        if _handler_of(signal.SIGCHLD) != signal.SIG_DFL:
            self._put_back_child()
        if _handler_of(signal.SIGUSR2) != signal.SIG_DFL:
            current = signal.getsignal(signal.SIGUSR2)
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            signal_actions.write(signal.SIGUSR2, self._stacks)
            _log.warning("%s: put back: by it stacks are asked for", _set_by_user(signal.SIGUSR2, current))

    def _put_back_child(self) -> None:
        """Restores Python's table and the kernel's action. Then the loop looks for children whose end it has missed."""
        text = _set_by_user(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if signal_actions.handler_of(self._child) == signal_actions.NOTHING:
            self._retire(f"{text}: {_CHILD}")
        signal_actions.write(signal.SIGCHLD, self._child)
        signal.raise_signal(signal.SIGCHLD)
        _log.warning("%s: put back: %s", text, _CHILD)


def name_others() -> None:
    """Logs foreign handlers that stay, with their effect, once for each signal. Call it about once a second."""
    for number in _valid - _named:
        handler = _handler_of(number)
        if callable(handler) and handler is not signal.default_int_handler:
            _named.add(number)
            _log.warning("%s: %s", _set_by_user(number, handler), _FOREIGN)


def _set_by_user(number: int, handler: Handler) -> str:
    name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
    where = getattr(handler, "__qualname__", None)
    shown = f"{getattr(handler, '__module__', '')}.{where}" if where else str(handler)
    return f"the application has set a handler for {name} ({shown})"
