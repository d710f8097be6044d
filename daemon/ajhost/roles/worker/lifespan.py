"""The lifespan of a worker: entered before it joins the queue group, left after its last reply."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, Self

from ajhost import api
from ajhost.roles.application import Lifespan, manager_of
from ajhost.roles.handlers import load_lifespan
from ajhost.roles.specs import GenerationSpec, WorkerSpec

_log = logging.getLogger("ajhost.worker")


class LifespanFailed(Exception):
    """The lifespan could not be entered; the text says why."""


class LifespanRunner:
    """Enters and leaves the lifespan in one task, as task groups need it. `on_end` is called if it ends by itself."""

    def __init__(
        self,
        name: str,
        lifespan: Lifespan,
        worker: api.Worker,
        *,
        start_timeout: float,
        stop_timeout: float,
        on_end: Callable[[str], None],
    ) -> None:
        """Times in seconds."""
        self._name, self._lifespan, self._worker = name, lifespan, worker
        self._start_timeout, self._stop_timeout, self._on_end = start_timeout, stop_timeout, on_end
        self._entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, spec: GenerationSpec, worker_spec: WorkerSpec, on_end: Callable[[str], None]) -> Self | None:
        """The lifespan of a worker, or None if its application has none."""
        python = spec.python
        if python.lifespan is None:
            return None
        return cls(
            python.lifespan,
            load_lifespan(python.lifespan),
            api.Worker(worker_spec.slot, worker_spec.generation, os.getpid()),
            start_timeout=python.start_timeout,
            stop_timeout=python.stop_timeout,
            on_end=on_end,
        )

    async def enter(self) -> Any:
        """Enters it, and returns what it yields. :raises LifespanFailed: it raised, or took too long."""
        self._task = task = asyncio.create_task(self._live(), name="lifespan")
        await asyncio.wait({self._entered, task}, timeout=self._start_timeout, return_when="FIRST_COMPLETED")
        if self._entered.done():
            return self._entered.result()
        if not task.done():
            stack = task.get_stack(limit=1)
            at = f", in line {stack[0].f_lineno} of {stack[0].f_code.co_filename}" if stack else ""
            task.cancel()
            raise LifespanFailed(
                f"python.lifespan: {self._name} took more than {self._start_timeout:g} s{at}"
            )
        error = task.exception() if not task.cancelled() else asyncio.CancelledError()
        assert error is not None
        raise LifespanFailed(
            f"python.lifespan: {self._name} raised {type(error).__name__}: {error}"
        ) from error

    async def _live(self) -> None:
        async with manager_of(self._name, self._lifespan, self._worker) as state:
            self._entered.set_result(state)
            try:
                await self._leave.wait()
            finally:
                if not self._leave.is_set():
                    _log.error("python.lifespan: %s has ended before its worker", self._name)
                    self._on_end("its lifespan has ended")

    async def exit(self) -> None:
        """Leaves it, within the stop timeout. Raises nothing."""
        task = self._task
        if task is None:
            return
        self._leave.set()
        if not self._entered.done():
            task.cancel()
        await asyncio.wait({task}, timeout=self._stop_timeout)
        if not task.done():
            _log.error("python.lifespan: %s did not end within %g s", self._name, self._stop_timeout)
            task.cancel()
        elif not task.cancelled() and (error := task.exception()) is not None:
            _log.error("python.lifespan: %s raised at its end", self._name, exc_info=error)
