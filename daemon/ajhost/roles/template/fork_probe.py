"""Forks once, to find at-fork hooks of the imports (`os.register_at_fork`) that end, delay or hang the child."""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from dataclasses import dataclass

from ajhost.adapters.linux import os_error_texts
from ajhost.adapters.linux.descriptors import closing
from ajhost.adapters.linux.processes import wait_status
from ajhost.core.timings import FORK_PROBE_FIRST_LIMIT

_ALIVE = 77
"""The exit status of a child in which every hook has returned."""
_LONGEST_STACKS = 16 << 10


@dataclass(frozen=True, slots=True)
class Fork:
    """The result of a fork. `seconds`: until the child ended, its hooks included. `problem`: an error text, or None.

    `refused`: by the kernel, for which no import is to blame.
    """

    seconds: float
    problem: str | None
    refused: bool = False


class ForkProbe:
    """A trial of forks. To be made before the imports. `before`: the seconds that a fork took then."""

    def __init__(self) -> None:
        self._fork = os.fork  # an import may replace it
        self.before = self.run(FORK_PROBE_FIRST_LIMIT, -1).seconds

    def run(self, limit: float, stacks: int) -> Fork:
        """Forks once. A child that has not ended after `limit` seconds gets SIGABRT.

        :param stacks: the descriptor to which faulthandler, enabled in this process, writes at SIGABRT: the child's
            stack is read from it. -1 without one.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an import that ignores it would take the status away
        began = time.monotonic()
        size = os.fstat(stacks).st_size if stacks >= 0 else 0
        with warnings.catch_warnings():
            # Python 3.12 warns of threads, which ImportWatch reports
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                child = self._fork()
            except OSError as error:
                return Fork(0.0, f"cannot fork: {os_error_texts.explained(error)}", refused=True)
        if child == 0:
            os._exit(_ALIVE)
        in_parent = time.monotonic() - began
        if in_parent > limit:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            text = f"the at-fork hooks of the import took {in_parent:.1f} s before a fork, of {limit:g} s at most"
            return Fork(in_parent, f"{text}: no worker can be forked (os.register_at_fork)")
        with closing(os.pidfd_open(child)) as pidfd:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            hangs = not ended.poll(limit * 1000)
            if hangs:
                os.kill(child, signal.SIGABRT)
                if not ended.poll(1000):
                    os.kill(child, signal.SIGKILL)
                ended.poll(None)
            how = wait_status(pidfd)
        seconds = time.monotonic() - began
        if hangs:
            text = f"an at-fork hook of the import did not end within {limit:g} s in the forked process"
            return Fork(seconds, "\n".join([f"{text} (os.register_at_fork); its stack:", *_stack(stacks, size)]))
        if how is not None and how.code != _ALIVE:
            text = f"an at-fork hook of the import ended the forked process: {how.text}"
            return Fork(seconds, f"{text} (os.register_at_fork)")
        return Fork(seconds, None)


def _stack(stacks: int, start: int) -> list[str]:
    """Returns the lines that faulthandler has written since `start`, without those of this file."""
    if stacks < 0:
        return []
    text = os.pread(stacks, _LONGEST_STACKS, start).decode(errors="replace")
    return [line for line in text.splitlines() if line.startswith("  File ") and f'"{__file__}"' not in line]
