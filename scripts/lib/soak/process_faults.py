"""Faults of the host's processes, of its handlers and of its settings, at random instants.

Each is a coroutine that does its harm and says in a few words what it did.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from scripts.lib.soak.router import stamp
from scripts.lib.soak.stage import Event, Stage, Window
from tests.support import processes
from tests.support.program import CommandResult

_BROKEN_MODULES = {
    "syntax error": "def (",
    "exception": "raise RuntimeError('broken on purpose')",
    "exit": "import sys; sys.exit(5)",
    "no function": "work = 3",
    "hang": "import time; time.sleep(3600)",
}
_BROKEN_SETTINGS = {"bad TOML": "[workers\ncount =", "unknown key": "[workers]\ncuont = 3\n"}
_STARTS = 3
_PAUSE_AFTER_FAILURE = 2.0
"""Seconds, as in the unit's ExecStopPost."""
_RELOAD_LIMIT = 50.0
"""Seconds in which a reload is decided: the imports' limit, the time that new workers have, and some more."""


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
        stage.note(kind, f"for {ms / 1000:.1f} s ({request.id})" if route != "crash" else f"{how} ({request.id})")

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
