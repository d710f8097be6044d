"""Faults at random instants. Each is a coroutine that does its harm and says in a few words what it did."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ajhost.core.reconnect_backoff import BACKOFF
from ajhost.core.timings import ANSWER_MARGIN, LOGIN_SPREAD
from ajhost.ledger.connection_status import Reason
from scripts.lib.soak.router import Router, stamp
from scripts.lib.soak.service_manager import Service
from tests.support import processes
from tests.support.fake_nats import FALSE_SERVERS, FakeNats
from tests.support.host import ROOT
from tests.support.nats import NatsServer, free_port
from tests.support.operator_mode import write_secret
from tests.support.program import CommandResult
from tests.support.proxy import BlackHole

MODULE = "from scripts.lib.soak.handlers import *  # version {version}\n"
ROUTES = ("work", "thread", "block", "gil", "deaf", "fork", "crash")
_BROKEN_MODULES = {
    "syntax error": "def (",
    "exception": "raise RuntimeError('broken on purpose')",
    "exit": "import sys; sys.exit(5)",
    "no function": "work = 3",
    "hang": "import time; time.sleep(3600)",
}
_BROKEN_SETTINGS = {"bad TOML": "[workers\ncount =", "unknown key": "[workers]\ncuont = 3\n"}


PASSWORD = "sesame"
"""The host's, at the server."""


def server_config(*, password: str = PASSWORD, may: str = ">") -> str:
    """The server's configuration: who may come, and to what the host may subscribe."""
    host = f'{{user: host, password: {password}, permissions: {{subscribe: ["{may}"], publish: [">"]}}}}'
    lame_duck = 'lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n'
    return f"authorization {{ users = [{host}, {{user: router, password: {PASSWORD}}}] }}\n{lame_duck}"


_BACK = BACKOFF[Reason.ENDED].most + 0.5
"""Seconds after a server's start by which every process has connected again: the longest pause between two tries, and
some more."""
BACK_AFTER_REFUSAL = BACKOFF[Reason.AUTHORIZATION].most + LOGIN_SPREAD
"""As `_BACK`, after a server that was there and refused, or was silent: these are tried more seldom."""
_STARTS = 3
_PAUSE_AFTER_FAILURE = 2.0
"""Seconds, as in the unit's ExecStopPost."""
_RELOAD_LIMIT = 50.0
"""Seconds in which a reload is decided: the imports' limit, the time that new workers have, and some more."""


@dataclass(slots=True)
class Window:
    """A time during which something beyond the host's promise was the case; `end` is 0 while it lasts."""

    name: str
    start: float
    end: float = 0.0
    nobody: int = 0
    """Requests that found no responders meanwhile."""
    back: float = _BACK
    """Seconds after its end in which connections are made again."""

    def touches(self, since: float, until: float) -> bool:
        """Whether that time overlaps with it, or with the time in which all come back and do what has waited."""
        return self.start <= until and (not self.end or self.end + max(self.back, _BACK) >= since)


def away_at(deadline: float, servers: Iterable[Window], daemons: Iterable[Window] = ()) -> bool:
    """Whether a fault of the server explains that nobody was connected when the host would answer at the latest.

    A process is back `Window.back` seconds after the fault's end at the latest (docs/connection.md, "Reasons"), not at
    once: until then it may be in its pause between two tries, with results that nobody else has. A daemon that was
    killed is back when its next start is ready. So windows that follow each other more closely are one long window.
    """
    spans = [(w.start, (w.end or math.inf) + w.back, True) for w in servers]
    spans += [(w.start, w.end or math.inf, False) for w in daemons]
    chains: list[tuple[float, float, bool]] = []
    for start, end, of_server in sorted(spans):
        if chains and start <= chains[-1][1]:
            begin, before, has_server = chains.pop()
            chains.append((begin, max(before, end), has_server or of_server))
        else:
            chains.append((start, end, of_server))
    moment = deadline - ANSWER_MARGIN
    return any(has_server and start <= moment <= end for start, end, has_server in chains)


@dataclass(slots=True)
class Event:
    """A fault: when it began, what it was."""

    at: float
    text: str


@dataclass(slots=True)
class Stage:
    """What faults act upon, and what they leave in writing."""

    service: Service
    server: NatsServer
    router: Router
    rng: random.Random
    port: int
    counts: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    server_windows: list[Window] = field(default_factory=list)
    still_windows: list[Window] = field(default_factory=list)
    """The server stands still, as if cut off: what it has is late, and nothing is lost."""
    daemon_windows: list[Window] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    version: int = 0
    false_port: int = field(default_factory=free_port)
    """Of a second server that the host has, and that is none: `server_beside_is_false`."""
    # one at a time: the server's faults; whatever changes the host as a whole
    server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    host_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, kind: str, text: str = "") -> None:
        """A fault of that kind happens now."""
        self.counts[kind] += 1
        self.events.append(Event(time.time(), f"{kind} {text}".strip()))

    def settings(self) -> dict[str, dict[str, Any]]:
        """Settings that are good, and different each time."""
        rng = self.rng
        sections: dict[str, dict[str, Any]] = {
            "nats": {
                "servers": [self.server.url, f"nats://127.0.0.1:{self.false_port}"],
                "user": "host",
                "password_file": self.service.secret,
            },
            "python": {"path": [self.service.application, ROOT], "import_timeout": 5.0},
            "workers": {
                "count": rng.choice((1, 2, 3, 4, 4, 4, 4)),
                "concurrency": rng.choice((4, 16, 16, 32, 64)),
                "backlog": rng.choice((32, 64, 256, 1024)),
                "max_tasks": rng.choice((0, 0, 2000, 5000)),
                "kill_grace": 0.5,
                "drain_timeout": 8.0,
            },
            "runtime": {"directory": self.service.runtime},
        }
        for route in ROUTES:
            sections[f'handlers."{route}"'] = {"target": f"soak_app:{route}"}
        sections['handlers."few"'] = {"target": "soak_app:work", "concurrency": rng.choice((2, 4))}
        sections['handlers."pre:"'] = {"target": "soak_app:work"}
        sections['handlers.""'] = {"target": "soak_app:work"}
        return sections

    def write_good(self) -> None:
        """Settings and a module that work."""
        self.version += 1
        self.service.write_module(MODULE.format(version=self.version))
        self.service.write_settings(self.settings())


# processes


async def kill_worker(stage: Stage) -> None:
    """kill -9 of one worker."""
    if workers := stage.service.workers():
        pid = stage.rng.choice(workers)
        stage.killed.add(pid)
        processes.send(pid, signal.SIGKILL)
        stage.note("kill -9 of a worker", f"(pid {pid})")


async def kill_workers(stage: Stage) -> None:
    """kill -9 of all workers at the same moment."""
    workers = stage.service.workers()
    stage.killed.update(workers)
    for pid in workers:
        processes.send(pid, signal.SIGKILL)
    stage.note("kill -9 of all workers", f"(pids {workers})")


async def kill_again(stage: Stage) -> None:
    """kill -9 again and again, in quick succession."""
    for _ in range(stage.rng.randrange(3, 10)):
        await kill_worker(stage)
        await asyncio.sleep(stage.rng.uniform(0.005, 0.15))


async def kill_template(stage: Stage) -> None:
    """kill -9 of the template: a new generation follows."""
    if templates := stage.service.templates():
        processes.send(templates[-1], signal.SIGKILL)
        stage.note("kill -9 of the template", f"(pid {templates[-1]})")


async def stop_worker(stage: Stage) -> None:
    """SIGSTOP of a worker, and SIGCONT after a while."""
    if workers := stage.service.workers():
        pid, seconds = stage.rng.choice(workers), stage.rng.choice((0.1, 0.4, 1.0, 3.0, 8.0))
        processes.send(pid, signal.SIGSTOP)
        stage.note("kill -STOP of a worker", f"(pid {pid}) for {seconds} s")
        await asyncio.sleep(seconds)
        if pid in stage.service.workers():
            processes.send(pid, signal.SIGCONT)
            stage.events.append(Event(time.time(), f"kill -CONT (pid {pid})"))


# handlers that misbehave


def misbehaving(kind: str, route: str, shortest: float, longest: float) -> Callable[[Stage], Awaitable[None]]:
    """A task for a handler that does so for a random time between the two, in seconds."""

    async def act(stage: Stage) -> None:
        await stage.router.connected.wait()
        ms = 1000 * stage.rng.uniform(shortest, longest)
        deadline = stage.rng.uniform(3.2, 6)
        how = stage.rng.choice(("segfault", "exit", "kill"))
        request = await stage.router.send(route, {"ms": ms, "how": how}, deadline)
        stage.note(
            kind, f"for {ms / 1000:.1f} s ({request.id})" if route != "crash" else f"{how} ({request.id})"
        )

    return act


# reloads


async def _reload(stage: Stage) -> CommandResult | None:
    """`ajhost reload`, which must come to a decision."""
    try:
        return await stage.service.command("reload", timeout=_RELOAD_LIMIT)
    except TimeoutError:
        stage.surprises.append(f"a reload was not decided within {_RELOAD_LIMIT} s, at {stamp(time.time())}")
        return None


async def reload_good(stage: Stage) -> None:
    """New settings and a new module, by SIGHUP or by the command."""
    async with stage.host_lock:
        stage.write_good()
        stage.note("good reload")
        if stage.rng.random() < 0.3:
            stage.service.send(signal.SIGHUP)
            return
        result = await _reload(stage)
        if result is not None and result.status:
            stage.events.append(Event(time.time(), f"the good reload was rejected: {result.stderr.strip()}"))
            stage.counts["good reload rejected"] += 1


async def reload_broken(stage: Stage) -> None:
    """Settings or a module that cannot work: must be rejected."""
    async with stage.host_lock:
        kind = stage.rng.choice((*_BROKEN_MODULES, *_BROKEN_SETTINGS))
        if kind in _BROKEN_MODULES:
            stage.service.write_module(_BROKEN_MODULES[kind])
        else:
            stage.service.write_settings(_BROKEN_SETTINGS[kind])
        stage.note("broken reload", f"({kind})")
        result = await _reload(stage)
        stage.write_good()
        if result is not None and result.status == 0:
            stage.surprises.append(f"a broken reload ({kind}) was taken at {stamp(time.time())}")


# the server


async def server_fault(stage: Stage) -> None:
    """nats-server is stopped or killed, and comes back after a moment."""
    async with stage.server_lock:
        kill = stage.rng.random() < 0.5
        name = "nats-server kill -9" if kill else "nats-server restart"
        stage.note(name)
        window = Window(name, time.time())
        stage.server_windows.append(window)
        stage.router.connected.clear()
        await (stage.server.kill() if kill else stage.server.stop())
        await asyncio.sleep(stage.rng.choice((0.0, 0.0, 0.3, 1.5, 3.0)))
        await stage.server.start()
        await stage.router.connected.wait()
        window.end = time.time()


async def server_stands_still(stage: Stage) -> None:
    """SIGSTOP of nats-server, and SIGCONT after a while: nothing passes through it, and it has what it was given."""
    async with stage.server_lock:
        seconds = stage.rng.choice((0.2, 0.7, 1.5, 3.0))
        stage.note("nats-server stopped", f"for {seconds} s")
        window = Window("nats-server stopped", time.time(), back=0.0)  # connections outlive it
        stage.still_windows.append(window)
        stage.server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        stage.server.send_signal(signal.SIGCONT)
        # two stops without a word in between are one long one, in which clients give their connections up
        await stage.router.barrier()
        window.end = time.time()


async def server_is_silent(stage: Stage) -> None:
    """As `server_stands_still`, but for so long that its clients give their connections up."""
    async with _server_window(stage, "nats-server silent"):
        stage.server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(stage.rng.uniform(7, 9))
        stage.server.send_signal(signal.SIGCONT)


async def server_is_a_black_hole(stage: Stage) -> None:
    """Killed, and its address takes no connection and refuses none for a while."""
    async with _server_window(stage, "nats-server in a black hole"):
        stage.router.connected.clear()
        await stage.server.kill()
        with BlackHole("127.0.0.1", stage.server.port):
            await asyncio.sleep(stage.rng.uniform(1, 5))
        await stage.server.start()
        await stage.router.connected.wait()


async def server_beside_is_false(stage: Stage) -> None:
    """The host's other server, where nobody listens otherwise, greets wrongly, is silent or refuses."""
    async with _server_window(stage, "false server beside"):
        kind = stage.rng.choice(tuple(FALSE_SERVERS))
        stage.events.append(Event(time.time(), f"the false server: {kind}"))
        async with FakeNats(FALSE_SERVERS[kind], port=stage.false_port):
            stage.router.connected.clear()
            await stage.server.restart()
            await stage.router.connected.wait()
            await asyncio.sleep(stage.rng.uniform(0.5, 4))


async def server_is_a_lame_duck(stage: Stage) -> None:
    """It tells its clients to go, ends their connections one by one, ends, and comes back."""
    async with _server_window(stage, "nats-server lame duck"):
        stage.router.connected.clear()
        await stage.server.lame_duck()
        await stage.server.ended(60)
        await stage.server.start()
        await stage.router.connected.wait()


async def permissions_are_lost(stage: Stage) -> None:
    """The host may not subscribe for a while."""
    async with _server_window(stage, "permissions lost"):
        await stage.server.reload(server_config(may="_INBOX.>"))
        await asyncio.sleep(stage.rng.uniform(0.5, 5))
        await stage.server.reload(server_config())


async def locked_out(stage: Stage) -> None:
    """The host's password is another one for a while."""
    async with _server_window(stage, "locked out"):
        await stage.server.reload(server_config(password="another"))
        await asyncio.sleep(stage.rng.uniform(0.5, 8))
        await stage.server.reload(server_config())


async def secret_is_truncated(stage: Stage) -> None:
    """The file of the password is empty when connections are made again, and whole again later."""
    # a start, and a reload, read the file too: without it they are right to refuse
    async with stage.host_lock, _server_window(stage, "secret truncated"):
        stage.service.secret.write_text("")
        stage.router.connected.clear()
        await stage.server.restart()
        await stage.router.connected.wait()
        await asyncio.sleep(stage.rng.uniform(0.1, 3))
        write_secret(stage.service.secret, PASSWORD)


@asynccontextmanager
async def _server_window(stage: Stage, name: str) -> AsyncIterator[None]:
    """While it lasts, and a while after it, the server may not pass on what it is given."""
    async with stage.server_lock:
        stage.note(name)
        window = Window(name, time.time(), back=BACK_AFTER_REFUSAL)
        stage.server_windows.append(window)
        try:
            yield
        finally:
            window.end = time.time()


# the daemon


async def kill_daemon(stage: Stage) -> None:
    """kill -9 of the supervisor, of every process with it or not, and the next start as systemd does it."""
    async with stage.host_lock:
        everything = stage.rng.random() < 0.7
        name = "kill -9 of the whole daemon" if everything else "kill -9 of the supervisor alone"
        window = Window(name, time.time())
        stage.daemon_windows.append(window)
        stage.killed.update(stage.service.workers())
        stage.note(name)
        if everything:
            stage.service.kill_all()
        else:
            stage.service.send(signal.SIGKILL)
        await stage.service.wait(10)
        await asyncio.sleep(0.1)
        await _start_as_systemd_does(stage)
        window.end = time.time()


async def _start_as_systemd_does(stage: Stage) -> None:
    """Starts it, and again after the unit's pause if another fault ended it meanwhile. Raises RuntimeError."""
    for _ in range(_STARTS - 1):
        try:
            await stage.service.start()
        except RuntimeError as error:
            stage.events.append(Event(time.time(), str(error)))
            stage.counts["start of the daemon repeated"] += 1
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)
        else:
            return
    await stage.service.start()


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault and how often it comes, relative to the others."""

    name: str
    act: Callable[[Stage], Awaitable[None]]
    weight: int


FAULTS = (
    Fault("kill a worker", kill_worker, 30),
    Fault("kill all workers", kill_workers, 5),
    Fault("kill again and again", kill_again, 5),
    Fault("kill the template", kill_template, 3),
    Fault("stop a worker", stop_worker, 8),
    Fault("blocked loop", misbehaving("blocked loop", "block", 0.2, 8), 8),
    Fault("GIL held in C", misbehaving("GIL held in C", "gil", 0.2, 8), 5),
    Fault("stuck thread", misbehaving("stuck thread", "thread", 5, 12), 5),
    Fault("swallowed cancellation", misbehaving("swallowed cancellation", "deaf", 5, 12), 3),
    Fault("forked child", misbehaving("forked child", "fork", 0, 1), 5),
    Fault("crash", misbehaving("crash", "crash", 0, 0), 6),
    Fault("good reload", reload_good, 6),
    Fault("broken reload", reload_broken, 5),
    Fault("nats-server", server_fault, 4),
    Fault("nats-server stands still", server_stands_still, 5),
    Fault("nats-server silent", server_is_silent, 1),
    Fault("nats-server in a black hole", server_is_a_black_hole, 1),
    Fault("false server beside", server_beside_is_false, 1),
    Fault("nats-server lame duck", server_is_a_lame_duck, 1),
    Fault("permissions lost", permissions_are_lost, 1),
    Fault("locked out", locked_out, 1),
    Fault("secret truncated", secret_is_truncated, 1),
)
DAEMON_FAULT = Fault("kill the daemon", kill_daemon, 5)
