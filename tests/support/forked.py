"""`ajhost` commands as processes, forked out of one that has imported the program.

An interpreter and its imports take 0.3 s of CPU for a host and 0.15 s for a command, and the suite starts thousands.
What is forked differs from `python -m ajhost` in that alone; tests that are about the start, a launcher's limits or the
interpreter's own variables execute it (`tests/host/test_inherited.py`, `tests/systemd/`).
"""

from __future__ import annotations

import asyncio
import atexit
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.fork_server import PROGRESS, Order

PROGRAM = (sys.executable, "-m", "ajhost")
"""What a command of `ajhost` begins with."""
_SERVER = Path(__file__).with_name("fork_server.py")
_OWN = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "TZ")
"""Variables that the interpreter, or the C library, reads once, when it starts."""
_PACKAGE = str(Path(__file__).parents[2] / "daemon")
_server: _Server | None = None


class ForkedProcess:
    """One of them, as far as tests use `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, progress: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._loop.add_reader(progress, self._readable)

    def _readable(self) -> None:
        self._loop.remove_reader(self._progress)
        _, status = PROGRESS.unpack(
            os.read(self._progress, PROGRESS.size) or PROGRESS.pack(0, signal.SIGKILL)
        )
        os.close(self._progress)
        self.returncode = os.waitstatus_to_exitcode(status)
        self._ended.set()

    async def wait(self) -> int:
        """Its exit status (-N: signal N), when it has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


class _Server:
    def __init__(self, own: Mapping[str, str]) -> None:
        self.own = own
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, _SERVER, str(theirs.fileno())],
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        atexit.register(self._close)

    def send(self, order: Order, descriptors: Sequence[int]) -> None:
        socket.send_fds(self._orders, [pickle.dumps(tuple(order))], descriptors)

    def _close(self) -> None:
        self._process.terminate()
        self._process.wait()


def _own(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_OWN)}


async def start(
    program: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    directory: Path,
    output: int,
    errors: int | None = None,
    new_session: bool = False,
) -> ForkedProcess | None:
    """Starts a command of `ajhost`, without input; None where `program` is none, or wants an interpreter of its own."""
    global _server
    if tuple(program[: len(PROGRAM)]) != PROGRAM:
        return None
    if _server is None:
        _server = _Server(_own({**os.environ, "PYTHONPATH": _PACKAGE}))
    if _own(env) != _server.own:
        return None
    order = Order(
        [os.fspath(argument) for argument in program[len(PROGRAM) :]],
        {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
        os.fspath(directory),
        new_session,
    )
    ours, theirs = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    _server.send(order, (theirs, null, output, output if errors is None else errors))
    os.close(theirs)
    os.close(null)
    loop, started = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(ours, started.set)
    try:
        await started.wait()
    finally:
        loop.remove_reader(ours)
    if not (told := os.read(ours, PROGRESS.size)):
        os.close(ours)
        raise RuntimeError("the process that forks commands has ended; why stands on stderr")
    return ForkedProcess(PROGRESS.unpack(told)[0], ours)
