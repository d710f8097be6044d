"""One task and one death in a real host: which files they pass through, in which order, and by which jumps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_LIB = Path(__file__).parent
_LIMIT = 40.0
_IDLE = 2.2
"""Seconds in which nothing happens: what a process does then belongs to no walk."""
_REGULAR = 4
"""A turn that an idle process has so often in that time is a tick."""
_AFTER = 0.5
"""Seconds after the answer: the server confirms it, and the worker frees its entry."""
_MODULE = """
import asyncio
import sys
from pathlib import Path
sys.path.insert(0, {lib!r})
import call_recorder
call_recorder.after_fork({package!r}, Path({directory!r}))

async def serve(task):
    return b"served"

async def hold(task):
    if not Path({flag!r}).exists():
        Path({flag!r}).touch()
        await asyncio.sleep(60)
"""
_SUPERVISOR = """
import sys
sys.path.insert(0, {lib!r})
import call_recorder
call_recorder.begin({package!r}, {log!r})
import runpy
runpy.run_module("ajhost", run_name="__main__", alter_sys=True)
"""


class Jump(NamedTuple):
    """A call from one file into another. `named`: "go to definition" follows it. An empty `origin`: the loop called."""

    at_ns: int
    turn: int
    origin: str
    target: str
    function: str
    named: bool


@dataclass(frozen=True)
class Walk:
    """The jumps of one task or one death, in their order."""

    jumps: tuple[Jump, ...]

    @property
    def files(self) -> list[str]:
        """Every file, in the order of the first visit."""
        return list(dict.fromkeys(jump.target for jump in self.jumps))

    @property
    def way(self) -> list[str]:
        """The files of the way: each hands on to a file of `roles/`. The others are tools, which come back."""
        callers = {jump.origin for jump in self.jumps if jump.target.startswith("roles/")}
        return [name for name in self.files if name in callers]

    @property
    def crossings(self) -> int:
        """Different jumps between files."""
        return len({(j.origin, j.target, j.function) for j in self.jumps if j.origin})

    @property
    def unnamed(self) -> list[str]:
        """The jumps that "go to definition" does not follow."""
        found = {(j.origin, j.target, j.function) for j in self.jumps if not j.named}
        return [f"{origin} -> {target}: {function}" for origin, target, function in sorted(found)]

    def without(self, idle: Walk) -> Walk:
        """Without what an idle process does: turns that do nothing else, and what its regular turns do anyway."""
        known = {jump[2:] for jump in idle.jumps}
        began = Counter(jump.function for jump in idle.jumps if not jump.origin)
        ticks = {j.turn for j in self.jumps if not j.origin and began[j.function] >= _REGULAR}
        busy = {jump.turn for jump in self.jumps if jump[2:] not in known}
        return Walk(tuple(j for j in self.jumps if j.turn in busy and (j.turn not in ticks or j[2:] not in known)))


class Host:
    """A host of any version of ajhost, with one worker; it and its supervisor write down their jumps."""

    def __init__(self, tree: Path, directory: Path) -> None:
        self._python, self.package = tree / ".venv/bin/python", f"{tree}/daemon/ajhost"
        self._server_program = tree / ".venv/bin/nats-server"
        self._daemon, self._directory = tree / "daemon", directory
        self._settings = directory / "ajhost.toml"
        self.held = directory / "held"
        """There once a task holds the worker."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """From ready to stopped."""
        (self._directory / "run").mkdir()
        module = _MODULE.format(
            lib=str(_LIB), package=self.package, directory=str(self._directory), flag=str(self.held)
        )
        (self._directory / "walked.py").write_text(module)
        with contextlib.ExitStack() as ends:
            self._settings.write_text(
                f'[nats]\nservers = ["{self._serve(ends)}"]\n'
                f'[python]\npath = ["{self._directory}"]\n[workers]\ncount = 1\nconcurrency = 1\n'
                f'[handlers."walk"]\ntarget = "walked:serve"\n[handlers."hold"]\ntarget = "walked:hold"\n'
                f'[runtime]\ndirectory = "{self._directory}/run"\n'
            )
            wrapped = _SUPERVISOR.format(lib=str(_LIB), package=self.package, log=f"{self._directory}/supervisor.calls")
            log = ends.enter_context((self._directory / "host.log").open("wb"))
            command = [str(self._python), "-c", wrapped, "run", "-c", str(self._settings)]
            host = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log)
            ends.callback(_end, host)
            self.until(lambda: self.ajhost("status") == 0)
            yield

    def _serve(self, ends: contextlib.ExitStack) -> str:
        ports = self._directory / "ports"
        ports.mkdir()
        command = [str(self._server_program), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends.callback(_end, server)
        self.until(lambda: list(ports.iterdir()) and _urls(ports))
        return _urls(ports)

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self._daemon)}

    def begin(self, name: str, *rest: str) -> subprocess.Popen[bytes]:
        """Begins a command on the host."""
        command = [str(self._python), "-m", "ajhost", name, "-c", str(self._settings), *rest]
        return subprocess.Popen(command, env=self._environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ajhost(self, name: str, *rest: str) -> int:
        """Runs a command on the host; its exit status."""
        return self.begin(name, *rest).wait()

    def worker(self) -> int:
        """The pid of the worker."""
        return next(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and self._is_worker(p))

    def _is_worker(self, process: Path) -> bool:
        with contextlib.suppress(OSError):
            title = (process / "cmdline").read_bytes()
            return (
                title.startswith(b"ajhost: worker")
                and str(self._directory).encode()
                in (process / "environ").read_bytes() + (process / "maps").read_bytes()
            )
        return False

    def walk(self, process: str, begin_ns: int, end_ns: int) -> Walk:
        """What one process did in a time."""
        path = self._directory / f"{process}.calls"
        jumps = [Jump(*json.loads(line)) for line in path.read_text().splitlines()]
        return Walk(tuple(jump for jump in jumps if begin_ns <= jump.at_ns < end_ns))

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for something."""
        end = time.monotonic() + _LIMIT
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError((self._directory / "host.log").read_text())
            time.sleep(0.05)


def _urls(ports: Path) -> str:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return str(json.loads(next(ports.iterdir()).read_text())["nats"][0])
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def walks(tree: Path) -> tuple[Walk, Walk]:
    """One task through its worker, and one death of a worker, which runs a task and has another waiting."""
    with tempfile.TemporaryDirectory(prefix="walks-") as name:
        host = Host(tree.resolve(), Path(name))
        with host.running():
            pid = host.worker()
            host.ajhost("call", "walk")  # what is done once is done
            task = _recorded(host, f"worker-{pid}", lambda: host.ajhost("call", "walk"))
            calls = [host.begin("call", "hold")]
            host.until(host.held.exists)
            calls.append(host.begin("call", "hold"))
            time.sleep(2 * _AFTER)

            def die() -> None:
                os.kill(pid, signal.SIGKILL)
                for call in calls:
                    call.wait()
                host.until(lambda: host.ajhost("status") == 0)

            return task, _recorded(host, "supervisor", die)


def _recorded(host: Host, process: str, act: Callable[[], object]) -> Walk:
    """What a process does because of `act`."""
    time.sleep(_AFTER)
    idle = time.monotonic_ns()
    time.sleep(_IDLE)
    begin = time.monotonic_ns()
    act()
    time.sleep(_AFTER)
    return host.walk(process, begin, time.monotonic_ns()).without(host.walk(process, idle, begin))
