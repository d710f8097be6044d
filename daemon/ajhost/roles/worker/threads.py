"""Threads for plain functions: started when needed, reused, and replaced when one is stuck."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ajhost.adapters.linux import processes
from ajhost.core.timings import SWITCH_INTERVAL

_STEPS_BACK = 5
"""How much nicer threads are than the loop, which reads, keeps deadlines and answers (docs/performance.md)."""

_Job = tuple[str, contextvars.Context, Callable[[], None]]


def prepare_for_threads() -> None:
    """Lets the event loop have its turn while threads compute."""
    sys.setswitchinterval(SWITCH_INTERVAL)


class NoThreads(Exception):
    """The system gives this process no thread: its limit of tasks, or memory."""


class Threads:
    """A pool whose threads keep no process alive. At most `limit` of them are in it; stuck ones are not.

    Each `run` is followed by `done` when its end is known here, or by `lost` when it is stuck (then perhaps `found`).
    All four are called on the loop alone, so that nothing but the queue of jobs is shared with the threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._alive = 0
        self._held = 0
        """Jobs that are waiting, or running in a thread that is not stuck."""

    def run(self, name: str, context: contextvars.Context, work: Callable[[], None]) -> None:
        """Runs `work`, which must not raise, in a thread that bears `name` meanwhile, and in `context`.

        It waits while all threads of the pool have work.

        :raises NoThreads: there is none, and none can be had.
        """
        if self._held >= self._alive and not self._start() and not self._alive:
            raise NoThreads
        self._held += 1
        self._jobs.put((name, context, work))

    def done(self) -> None:
        """A job has ended."""
        self._held -= 1

    def lost(self) -> None:
        """A job does not end: its thread leaves the pool, and what waits for a thread gets another."""
        self._held -= 1
        self._alive -= 1
        if self._held > self._alive:
            self._start()

    def found(self) -> None:
        """The job of a lost thread has ended; the thread is in the pool again, or goes if it is one too many."""
        if self._alive < self._limit:
            self._alive += 1
        else:
            self._jobs.put(None)

    def _start(self) -> bool:
        if self._alive >= self._limit:
            return False
        try:
            threading.Thread(target=self._loop, daemon=True, name="ajhost idle").start()
        except RuntimeError:
            return False  # those that there are take what waits
        self._alive += 1
        return True

    def _loop(self) -> None:
        processes.lower_thread_priority(_STEPS_BACK)
        thread = threading.current_thread()
        while (job := self._jobs.get()) is not None:
            thread.name, context, work = job
            context.run(work)
            thread.name = "ajhost idle"
            del job, context, work
