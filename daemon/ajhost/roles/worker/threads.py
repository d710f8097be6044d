"""Threads for plain functions: started when needed, reused, and replaced when one is stuck."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable

_SWITCH_INTERVAL = 0.0005
"""Seconds; with the default of 5 ms the loop waits behind each thread that computes (p99 137 against 77 ms)."""


def prepare_for_threads() -> None:
    """Lets the event loop have its turn while threads compute."""
    sys.setswitchinterval(_SWITCH_INTERVAL)


class Threads:
    """A pool whose threads keep no process alive. `limit` counts those that are not stuck."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: deque[tuple[str, contextvars.Context, Callable[[], None]]] = deque()
        self._ready = threading.Condition()
        self._idle = 0
        self._alive = 0

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Runs `work`, which must not raise, in a thread that bears `name` meanwhile; with the caller's context."""
        with self._ready:
            self._work.append((name, contextvars.copy_context(), work))
            if self._idle >= len(self._work):
                self._ready.notify()
                return
            if self._alive >= self._limit:
                return  # one of them takes it when it is done
            self._alive += 1
        threading.Thread(target=self._loop, daemon=True, name=name).start()

    def lost(self) -> None:
        """A thread is stuck: it counts no more, so that another may start."""
        with self._ready:
            self._alive -= 1

    def found(self) -> None:
        """A stuck thread came back."""
        with self._ready:
            self._alive += 1

    def _loop(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._ready:
                while not self._work:
                    self._idle += 1
                    thread.name = "ajhost idle"
                    self._ready.wait()
                    self._idle -= 1
                name, context, work = self._work.popleft()
            thread.name = name
            context.run(work)
            del name, context, work
