"""`ajhost` commands as processes, forked out of one that has imported the program.

An interpreter and its imports take 0.3 s of CPU for a host and 0.15 s for a command, and the suite starts thousands.
What is forked differs from `python -m ajhost` in that alone; tests that are about the start, a launcher's limits or the
interpreter's own variables execute it (`tests/host/test_launchers.py`, `tests/systemd/`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import pickle
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
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
        _, status = PROGRESS.unpack(os.read(self._progress, PROGRESS.size) or PROGRESS.pack(0, signal.SIGKILL))
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
        self._orders.close()  # it ends what still runs, and itself
        self._process.wait()


def _own(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_OWN)}


def _send(
    program: Sequence[str | Path],
    env: Mapping[str, str],
    directory: Path,
    streams: tuple[int, int],
    new_session: bool,
    terminal: bool = False,
) -> int | None:
    """The pipe that tells what becomes of the command; None where it wants an interpreter of its own."""
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
        terminal,
    )
    ours, theirs = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    _server.send(order, (theirs, streams[0] if terminal else null, *streams))
    os.close(theirs)
    os.close(null)
    return ours


def _told(progress: int) -> tuple[int, int]:
    told = os.read(progress, PROGRESS.size)
    if not told:
        raise RuntimeError("the process that forks commands has ended; why stands on stderr")
    pid, status = PROGRESS.unpack(told)
    return pid, status


async def start(
    program: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    directory: Path,
    output: int,
    errors: int | None = None,
    new_session: bool = False,
    terminal: bool = False,
) -> ForkedProcess | None:
    """Starts a command of `ajhost`; None where `program` is none, or wants an interpreter of its own.

    It has no input; `terminal`: `output` is one, which it is alone on.
    """
    streams = (output, output if errors is None else errors)
    progress = _send(program, env, directory, streams, new_session or terminal, terminal)
    if progress is None:
        return None
    loop, started = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(progress, started.set)
    try:
        await started.wait()
    finally:
        loop.remove_reader(progress)
    return ForkedProcess(_told(progress)[0], progress)


def run(
    *program: str | Path, env: Mapping[str, str], directory: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """A command to its end, for tests without a loop. Raises TimeoutError after `timeout` s, it being killed then."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        progress = _send(program, env, directory, (output.fileno(), errors.fileno()), False)
        assert progress is not None, f"{program} wants an interpreter of its own"
        with contextlib.closing(os.fdopen(progress)):
            pid, _ = _told(progress)
            ready, _, _ = select.select([progress], [], [], timeout)
            if not ready:
                os.kill(pid, signal.SIGKILL)
                raise TimeoutError(f"{program} runs on after {timeout} s")
            _, status = _told(progress)
        output.seek(0)
        errors.seek(0)
        told = (stream.read().decode() for stream in (output, errors))
        return subprocess.CompletedProcess(program, os.waitstatus_to_exitcode(status), *told)


class OnTerminal:
    """A command on a terminal, for tests without a loop: its process, and our end of the terminal."""

    def __init__(self, *program: str | Path, env: Mapping[str, str], directory: Path) -> None:
        self.terminal, theirs = pty.openpty()
        progress = _send(program, env, directory, (theirs, theirs), True, True)
        os.close(theirs)
        assert progress is not None, f"{program} wants an interpreter of its own"
        self._progress = progress
        self.pid, _ = _told(progress)

    def wait(self) -> int:
        """Its exit status, when it has ended."""
        with contextlib.closing(os.fdopen(self._progress)):
            return os.waitstatus_to_exitcode(_told(self._progress)[1])
