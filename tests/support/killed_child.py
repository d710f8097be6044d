"""Forked children that are killed or stopped between two instructions of ajhost's code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import ajhost
from tests.support.instruction_trace import Instructions

_OURS = str(Path(ajhost.__file__).parent)


Act = Callable[[Callable[[bytes], None], Callable[[Callable[[], object]], None]], None]
"""What a child does: `act(tell, watch)`. It calls `watch(world)` when it may be killed from then on."""


class Killed:
    """A forked child that does `act` and is killed by SIGKILL before the `kill_at`-th instruction of ajhost's code.

    0: it lives to the end, and `changes` then names the instructions before which `world()`, all that outlives the
    process, was another than before the one in front. A kill between two of them leaves what a kill at the first does.
    `told` is what the child wrote to its pipe.
    """

    def __init__(self, act: Act, kill_at: int) -> None:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            _run(act, kill_at, signal.SIGKILL, writer)
        os.close(writer)
        with open(reader, "rb") as stream:
            self.told = stream.read().split()
        _, status = os.waitpid(pid, 0)
        self.changes: list[int] = []
        if kill_at:
            assert os.WIFSIGNALED(status), (kill_at, status, self.told)
            assert os.WTERMSIG(status) == signal.SIGKILL
        else:
            assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
            self.changes = list(map(int, self.told.pop().split(b",")))


class Stopped:
    """A forked child that does `act`, and is stopped by SIGSTOP before the `stop_at`-th line of `ajhost.ledger`.

    Nothing else reads or writes shared memory. It is stopped when this is made, unless it had `ended` before that.
    """

    def __init__(self, act: Act, stop_at: int) -> None:
        self._reader, writer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run(act, stop_at, signal.SIGSTOP, writer, lines_of=str(Path(_OURS) / "ledger"))
        os.close(writer)
        _, status = os.waitpid(self._pid, os.WUNTRACED)
        self.ended = not os.WIFSTOPPED(status)
        self._over = self.ended
        assert not self.ended or status == 0, "the child failed"

    def go_on(self) -> None:
        """To its end; at once if it has ended."""
        if not self._over:
            os.kill(self._pid, signal.SIGCONT)
            assert os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]) == 0, "the child failed"
            self._over = True

    def kill(self) -> None:
        """SIGKILL, where it stands."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._reader)
        self._over = True

    def told(self) -> list[bytes]:
        """What it wrote to its pipe. It must have ended."""
        assert self._over
        with open(self._reader, "rb") as stream:
            return [word for word in stream.read().split() if word[:1].isalpha()]


def _run(act: Act, signal_at: int, number: int, writer: int, lines_of: str = "") -> None:
    executed, changes, last = 0, [1], None
    look: Callable[[], object] = lambda: None  # noqa: E731
    code = lines_of or _OURS
    line: object = None

    def before() -> None:
        nonlocal executed, last, line
        if lines_of:
            frame = sys._getframe(1)
            while not frame.f_code.co_filename.startswith(code):
                assert frame.f_back is not None
                frame = frame.f_back
            if line == (line := (frame.f_code, frame.f_lineno)):
                return
        executed += 1
        if executed == signal_at:
            os.kill(os.getpid(), number)
        if not signal_at and (now := look()) != last:
            last = now
            changes.append(executed)

    instructions = Instructions(lambda file: file.startswith(code), before)

    def watch(world: Callable[[], object]) -> None:
        nonlocal look, last
        look, last = world, world()
        instructions.__enter__()

    status = 1
    try:
        act(lambda text: _write(writer, text), watch)
        instructions.__exit__()
        _write(writer, b",".join(b"%d" % n for n in [*changes, executed]))
        status = 0
    finally:
        os._exit(status)


def _write(writer: int, text: bytes) -> None:
    os.write(writer, text + b" ")
