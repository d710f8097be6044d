"""Finds what the imports of the handlers have left in the template (descriptors, threads, children, signals, limits,
functions that they have replaced), and decides, by `python.allow_open` and `preload`, what of it refuses a start, a
reload or a check, and what is a warning.

A worker is a fork of the template (fork(2)). It shares every open file description with all other workers: two workers
would read each other's answers from one connection. It has none of the template's threads, timers and children.
"""

from __future__ import annotations

import _thread
import asyncio
import builtins
import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ajhost.adapters.linux.proc import caught_signals, children, is_dead
from ajhost.core.timings import FORK_PROBE_LIMIT, FORK_PROBE_SLOW
from ajhost.roles.template.fork_probe import ForkProbe
from ajhost.roles.template.native_threads import thread_names
from ajhost.roles.template.process_pools import shared_results
from ajhost.settings.sections import PythonSettings

CONNECTION, LISTENER, FILE, DESCRIPTOR = "connection", "listener", "file", "descriptor"
RESULTS = "results"
THREAD, CHILD, SIGNAL, TIMER = "thread", "child", "signal", "timer"
TIMEOUT, PATCH, FORK, PROCESS = "timeout", "patch", "fork", "process"
_NO_FORK = "no fork"
"""The kernel refuses a fork, for which the imports are not to blame."""
_REFUSED = "refused"
"""The kind of effects that no setting allows."""

_MIXED_UP = {
    CONNECTION: "read each other's answers. Connect in the first task of a worker",
    RESULTS: "take each other's results. Make it in a lifespan",
}
"""Kinds of what workers must not share, and what they would do, and should."""
_HARMLESS = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
_SYSLOG = ("/dev/log", "/run/systemd/journal/")
"""Datagram sockets to these may be shared: each datagram is a whole record, and has no answer."""
_ANONYMOUS = {
    "eventpoll": "an epoll instance, that of an event loop",
    "eventfd": "an eventfd",
    "timerfd": "a timerfd",
    "signalfd": "a signalfd",
    "inotify": "an inotify instance",
    "pidfd": "a pidfd",
    "io_uring": "an io_uring",
}
_LOOKS = 50
"""How many times the arguments of a child are read, a millisecond apart."""
_TCP_SYN_SENT = 2
"""linux/tcp_states.h"""
_TIMERS = {signal.ITIMER_REAL: "SIGALRM", signal.ITIMER_VIRTUAL: "SIGVTALRM", signal.ITIMER_PROF: "SIGPROF"}
_UNDONE = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE))
"""Signals whose handlers the host replaces after the imports (`template.py`, `worker/main.py`)."""
_LIMITS = {
    "RLIMIT_NOFILE": 64,
    "RLIMIT_AS": 128 << 20,
    "RLIMIT_DATA": 0,
    "RLIMIT_FSIZE": 0,
    "RLIMIT_NPROC": 0,
    "RLIMIT_CPU": 0,
    "RLIMIT_STACK": 0,
}
"""Names, and what any worker needs before its first task (getrlimit(2))."""
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
        (asyncio, ("run", "get_event_loop")),
        (subprocess, ("Popen",)),
        (ssl, ("SSLContext",)),
        (builtins, ("open", "print")),
    )
    for name in names
    if hasattr(module, name)
}
"""Functions and classes that the host calls in the template or in a worker."""


@dataclass(frozen=True, slots=True)
class ImportEffect:
    """One thing that an import has left. `name`: what patterns of `python.allow_open` match. `text`: one sentence."""

    kind: str
    name: str
    text: str


class ImportWatch:
    """Records the state of the process when it is made, before the imports; `effects` compares with it."""

    def __init__(self) -> None:
        self._descriptors = dict(_descriptors())
        self._threads = set(thread_names())
        self._children = children()
        self._signals = _signals()
        self._caught = caught_signals("self")
        self._timeout = socket.getdefaulttimeout()
        self._functions = {key: getattr(module, name) for key, (module, name) in _CALLED.items()}
        self._limits, self._user, self._root = _soft_limits(), os.geteuid(), _root()
        self._probe = ForkProbe()
        self._timers: list[str] = []

    def stop_timers(self) -> None:
        """Stops interval timers (setitimer(2)). A handler of their signals that raises would end the template."""
        self._timers += [name for timer, name in _TIMERS.items() if signal.setitimer(timer, 0.0) != (0.0, 0.0)]

    def effects(self, stacks: int) -> list[ImportEffect]:
        """Returns what is different now; refused kinds and connections first.

        It forks once, to try the at-fork hooks, so it must be called while the time limit of the imports still runs.

        :param stacks: the descriptor to which faulthandler writes in this process.
        """
        changed = [*self._limits_and_user()]
        if any(effect.kind == _REFUSED for effect in changed):
            return changed  # such a process may not even see its own descriptors
        found = [
            *self._replaced_functions(),
            *self._open(),
            *self._threads_and_children(),
            *self._signals_and_timers(),
            *changed,
            *self._fork_hooks(stacks),  # last, since it sets SIGCHLD to its default
        ]
        if (timeout := socket.getdefaulttimeout()) != self._timeout:
            now = "none" if timeout is None else f"{timeout:g} s"
            text = f"the default timeout of sockets is {now} (socket.setdefaulttimeout)"
            found.append(ImportEffect(TIMEOUT, "timeout", f"{text}: every new socket of a handler has it"))
        return sorted(found, key=lambda effect: effect.kind not in (_REFUSED, CONNECTION, RESULTS))

    def _limits_and_user(self) -> Iterator[ImportEffect]:
        """Yields what imports have changed of the process itself, and each worker inherits."""
        for name, limit in _soft_limits().items():
            before, least = self._limits[name], _LIMITS[name]
            if limit < before:
                was = "none" if before == float("inf") else f"{before:.0f}"
                text = f"{name} is {limit:.0f}, it was {was} (resource.setrlimit): each worker has it"
                if limit < least:
                    yield ImportEffect(_REFUSED, name, f"{text}, and needs {least}")
                else:
                    yield ImportEffect(PROCESS, name, text)
        if (user := os.geteuid()) != self._user:
            text = (
                f"the user is {user}, it was {self._user} (os.setuid): a worker may not open the host's files. "
                "Name the user by `user` in [runtime], by --user or in the unit"
            )
            yield ImportEffect(_REFUSED, "user", text)
        if _root() != self._root:
            text = "the root directory is another (os.chroot): a worker does not find the host's files"
            yield ImportEffect(_REFUSED, "root", text)

    def _replaced_functions(self) -> Iterator[ImportEffect]:
        """Yields which packages have replaced functions that the host calls, as gevent's `monkey.patch_all` does."""
        replaced: dict[str, list[str]] = {}
        for key, (module, name) in _CALLED.items():
            if (now := getattr(module, name, None)) is not self._functions[key]:
                owner = getattr(now, "__module__", None) or type(now).__module__
                replaced.setdefault(str(owner).partition(".")[0], []).append(key)
        green = [key for owner, keys in replaced.items() if owner in _GREEN for key in keys]
        if green:
            owner = next(owner for owner in replaced if owner in _GREEN)
            text = (
                f"{owner} has replaced {_some(green)}: the host's event loop, threads and deadlines do not work on "
                f"greenlets. Do not patch at import; run what needs {owner} as a program of its own"
            )
            yield ImportEffect(_REFUSED, owner, text)
        for owner, keys in replaced.items():
            if owner not in _GREEN:
                yield ImportEffect(PATCH, owner, f"{owner} has replaced {_some(keys)}, which the host calls too")

    def _open(self) -> Iterator[ImportEffect]:
        mapped = _mapped_files()
        new = [(descriptor, link) for descriptor, link in _descriptors() if self._descriptors.get(descriptor) != link]
        if any(link.startswith("pipe:") for _, link in new):
            for name, what in shared_results():
                yield ImportEffect(RESULTS, name, f"{what} is open")
        for descriptor, link in new:
            try:
                effect = _descriptor_effect(descriptor, link, mapped)
            except OSError:  # closed by a thread meanwhile
                continue
            if effect is not None:
                yield effect

    def _threads_and_children(self) -> Iterator[ImportEffect]:
        for thread, name in thread_names().items():
            if thread not in self._threads:
                yield ImportEffect(THREAD, name, f"the thread {name} runs in no worker: a fork does not copy it")
        for child in sorted(children() - self._children):
            name = _command(child)
            yield ImportEffect(CHILD, name, f"the process {name} (pid {child}) is no child of any worker")

    def _signals_and_timers(self) -> Iterator[ImportEffect]:
        now, caught = _signals(), caught_signals("self")
        for number, handler in now.items():
            native = (caught ^ self._caught) >> (number - 1) & 1
            if handler == self._signals[number] and not native:
                continue
            how = "a handler in C" if handler == self._signals[number] else _handler_name(handler)
            name = signal.Signals(number).name
            lasts = "the host does not keep it" if number in _UNDONE else "every worker has it"
            yield ImportEffect(SIGNAL, name, f"{name} has {how}: {lasts}")
        for name in self._timers:
            yield ImportEffect(TIMER, name, f"a timer that sends {name} runs in no worker: a fork does not copy it")

    def _fork_hooks(self, stacks: int) -> Iterator[ImportEffect]:
        took = self._probe.run(FORK_PROBE_LIMIT, stacks)
        if took.problem is not None:
            yield ImportEffect(_NO_FORK if took.refused else _REFUSED, "fork", took.problem)
        elif took.seconds - self._probe.before > FORK_PROBE_SLOW:
            text = f"a fork takes {took.seconds:.1f} s with the at-fork hooks of the import, and each worker needs two"
            yield ImportEffect(FORK, "fork", text)


def verdict(effects: Sequence[ImportEffect], python: PythonSettings, workers: int) -> tuple[list[str], list[str]]:
    """Divides effects into errors, which refuse the start or reload, and warnings.

    Without `preload` each worker imports by itself and shares nothing, but a port can be bound only once.

    :param workers: the number of workers.
    :returns: the texts of errors and warnings; an error names the setting or the change that avoids it.
    """
    errors: list[str] = []
    warnings: list[str] = []
    if no_fork := [effect.text for effect in effects if effect.kind == _NO_FORK]:
        return no_fork, []
    for effect in effects:
        if effect.kind == _REFUSED:
            errors.append(effect.text)
        elif any(fnmatchcase(effect.name, allowed) for allowed in python.allow_open):
            continue
        elif not python.preload:
            if effect.kind == LISTENER and workers > 1:
                errors.append(
                    f"a socket listens on {effect.name}, and each of {workers} workers would bind the port again "
                    "(python.preload = false). Listen with SO_REUSEPORT, or in a program of its own"
                )
            elif effect.kind in (TIMEOUT, PATCH, PROCESS):
                warnings.append(effect.text)
        elif effect.kind in _MIXED_UP:
            errors.append(
                f"{effect.text}: all workers would share it, and {_MIXED_UP[effect.kind]} instead, or set "
                f'python.preload = false, or python.allow_open = ["{effect.name}"]'
            )
        else:
            warnings.append(effect.text)
    return [f"the imports left something behind: {error}" for error in errors], warnings


# -- descriptors ----------------------------------------------------------------------------------


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of listdir
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return sorted(found)


def _descriptor_effect(descriptor: int, link: str, mapped: frozenset[tuple[int, int]]) -> ImportEffect | None:
    if link.startswith("socket:"):
        return _socket_effect(descriptor)
    if link.startswith("pipe:"):
        return _shared(DESCRIPTOR, link, "a pipe")
    if link.startswith("anon_inode:"):
        name = link.removeprefix("anon_inode:").strip("[]")
        return _shared(DESCRIPTOR, name, _ANONYMOUS.get(name, f"a descriptor of {name}"))
    if link in _HARMLESS or link.startswith("/memfd:"):
        return None
    found = os.fstat(descriptor)
    reads = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    if reads and (found.st_dev, found.st_ino) in mapped:
        return None  # open for mmap: no process reads by the shared position
    info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    if "\nlock:" in info:
        text = f"the file {link} is locked: the lock is the template's, or all workers hold it at once"
        return ImportEffect(FILE, link, text)
    return _shared(FILE, link, f"the file {link}")


def _shared(kind: str, name: str, what: str) -> ImportEffect:
    return ImportEffect(kind, name, f"{what} is open: all workers share it, its position and its state")


def _socket_effect(descriptor: int) -> ImportEffect | None:
    default = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)  # a socket object would make the shared description non-blocking
    try:
        with _ORIGINAL_SOCKET(fileno=os.dup(descriptor)) as sock:
            return _effect_of(sock)
    finally:
        socket.setdefaulttimeout(default)


_ORIGINAL_SOCKET: Callable[..., socket.socket] = socket.socket


def _effect_of(sock: socket.socket) -> ImportEffect | None:
    own = _address(sock.getsockname)
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        if own.startswith("unix:") or sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
            return _shared(DESCRIPTOR, own, f"a socket that listens on {own}")
        text = f"a socket listens on {own}: the import of the next reload finds the port in use, and is rejected"
        return ImportEffect(LISTENER, own, text)
    is_stream = sock.type in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
    try:
        peer = _address(sock.getpeername)
    except OSError:
        if is_stream and sock.family != socket.AF_UNIX and _is_connecting(sock):
            return ImportEffect(CONNECTION, own, f"a socket at {own} is being connected")
        if own and not is_stream:
            return _shared(DESCRIPTOR, own, f"a socket that receives at {own}")
        return _shared(DESCRIPTOR, "socket", "a socket without a peer")
    if sock.family == socket.AF_UNIX:
        if not peer:
            return _shared(DESCRIPTOR, "socketpair", "a pair of sockets")
        if not is_stream and peer.removeprefix("unix:").startswith(_SYSLOG):
            return None
    kind = "connection" if is_stream else "socket of datagrams"
    return ImportEffect(CONNECTION, peer, f"a {kind} to {peer} is open")


def _address(name: Callable[[], object]) -> str:
    """Returns an address as text: `127.0.0.1:80`, `[::1]:80`, `unix:/path`, `unix:@abstract`; empty without one."""
    match name():
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case bytes(abstract):
            return f"unix:@{abstract.strip(chr(0).encode()).decode(errors='replace')}" if abstract else ""
        case str(path):
            return f"unix:{path}" if path else ""
        case other:
            return str(other)


def _is_connecting(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == _TCP_SYN_SENT
    except OSError:
        return False


def _mapped_files() -> frozenset[tuple[int, int]]:
    """Returns device and inode of the files that are mapped into this process."""
    found = set()
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[4] != "0":
            major, _, minor = fields[3].partition(":")
            found.add((os.makedev(int(major, 16), int(minor, 16)), int(fields[4])))
    return frozenset(found)


# -- the process itself ----------------------------------------------------------------------------


def _command(pid: int) -> str:
    """Returns the program of a child. `Popen` returns while execve(2) closes descriptors, before it sets arguments."""
    words = [b""]
    for _ in range(_LOOKS):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0] or is_dead(pid):
            break
        time.sleep(0.001)
    return words[0].decode(errors="replace") or "(ended)"


def _signals() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in signal.Signals}


def _handler_name(handler: object) -> str:
    if isinstance(handler, signal.Handlers):
        return handler.name
    name = getattr(handler, "__qualname__", type(handler).__qualname__)
    return f"the handler {getattr(handler, '__module__', '?')}.{name}"


def _soft_limits() -> dict[str, float]:
    soft = {name: resource.getrlimit(getattr(resource, name))[0] for name in _LIMITS}
    return {name: float("inf") if s == resource.RLIM_INFINITY else s for name, s in soft.items()}


def _root() -> tuple[int, int]:
    found = os.stat("/")
    return found.st_dev, found.st_ino


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
