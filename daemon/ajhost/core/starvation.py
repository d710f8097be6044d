"""How long a process wanted a CPU and had none. It tells a hanging worker from one on a machine without free CPUs.

A thread that is runnable and does not run waits for a CPU: other threads have all of them, or the CPU quota of its
control group is used up. The kernel adds that time to the thread's run delay, but only when the thread runs again.
Until then the thread is runnable and its run time does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ThreadTimes(NamedTuple):
    """One thread: whether it is running or runnable, and its nanoseconds on a CPU and on a run queue."""

    runnable: bool
    ran_ns: int
    waited_ns: int


class Starvation:
    """The time without a CPU of one process since the first `observe`."""

    def __init__(self) -> None:
        self.starved_ns = 0
        self._threads: Mapping[int, ThreadTimes] = {}
        self._at_ns = 0

    def observe(self, threads: Mapping[int, ThreadTimes], now_ns: int) -> None:
        """Adds the longest wait of any thread since the last call, from the threads' times at `now_ns`.

        Every thread counts: the loop's thread may wait for one that holds the interpreter's lock and gets no CPU.
        """
        passed_ns = now_ns - self._at_ns if self._at_ns else 0
        waits = [
            _waited_ns(before, thread, passed_ns)
            for number, thread in threads.items()
            if (before := self._threads.get(number)) is not None
        ]
        self.starved_ns += min(max(waits, default=0), passed_ns)
        self._threads, self._at_ns = threads, now_ns


def _waited_ns(before: ThreadTimes, now: ThreadTimes, passed_ns: int) -> int:
    recorded_ns = now.waited_ns - before.waited_ns
    if before.runnable and now.runnable:
        # the kernel records the wait only when the thread runs next
        return max(recorded_ns, passed_ns - (now.ran_ns - before.ran_ns))
    return recorded_ns
