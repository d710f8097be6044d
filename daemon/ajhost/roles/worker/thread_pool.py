"""Threads for plain functions, with a lower priority than the loop: started when needed, reused, and replaced when one
is stuck. Finds that the system starts none, which `executor.py` answers.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ajhost.adapters.linux import os_error_texts, processes
from ajhost.adapters.threads import start_daemon_thread
from ajhost.core.timings import SWITCH_INTERVAL

_STEPS_BACK = 5
"""How much nicer threads are than the loop, which reads, keeps deadlines and answers (docs/performance.md)."""

_Job = tuple[str, contextvars.Context, Callable[[], None]]


def prepare_for_threads() -> None:
    """Shortens the switch interval, so that the event loop runs while threads compute."""
    sys.setswitchinterval(SWITCH_INTERVAL)


class NoThreads(RuntimeError):
    """The system starts no thread for this process: a limit of tasks, or of memory. The text says which.

    Middleware sees it as the RuntimeError that Python raises.
    """


class Threads:
    """A pool of daemon threads, at most `limit`. A stuck thread is not in the pool.

    Each `run` is followed by `done` when the loop knows of its end, or by `lost` when it is stuck, and perhaps `found`.
    Only the loop calls these four, so the threads share nothing but the queue of jobs.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._alive = 0
        self._held = 0
        """Jobs that are waiting, or running in a thread that is not stuck."""

    def run(self, name: str, context: contextvars.Context, work: Callable[[], None]) -> None:
        """Runs `work`, which must not raise, in `context` and in a thread that is named `name` meanwhile.

        It waits while all threads of the pool have work.

        :raises NoThreads: the pool has no thread, and the system starts none.
        """
        if self._held >= self._alive and not self._start() and not self._alive:
            raise NoThreads(os_error_texts.no_thread())
        self._held += 1
        self._jobs.put((name, context, work))

    def done(self) -> None:
        """Counts a job that has ended."""
        self._held -= 1

    def lost(self) -> None:
        """Takes the thread of a stuck job out of the pool. A new thread takes the next job."""
        self._held -= 1
        self._alive -= 1
        if self._held > self._alive:
            self._start()

    def found(self) -> None:
        """Takes a lost thread, whose job has ended, into the pool again, or ends it if the pool is full."""
        if self._alive < self._limit:
            self._alive += 1
        else:
            self._jobs.put(None)

    def _start(self) -> bool:
        if self._alive >= self._limit:
            return False
        try:
            start_daemon_thread(self._loop, "ajhost idle")
        except RuntimeError:
            return False  # the threads of the pool take the jobs that wait
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
