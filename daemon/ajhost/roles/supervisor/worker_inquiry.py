"""Asks workers about tasks. A worker that does not answer in time hangs: the caller then reads its ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ajhost.roles.messages import CancelOrder, CancelResult, StacksOrder, StacksResult
from ajhost.roles.supervisor.worker_process import WorkerProcess


class WorkerInquiry:
    """The questions, one at a time. An answer that comes too late does not count for the next question."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, type, str], asyncio.Future[str]] = {}
        self._lock = asyncio.Lock()

    async def ask(
        self,
        workers: Collection[WorkerProcess],
        order: CancelOrder | StacksOrder,
        result: type[CancelResult | StacksResult],
        limit: float,
    ) -> dict[int, str]:
        """Returns the answers that arrive within `limit` seconds, by the worker's serial."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            self._answers = {(w.serial, result, order.task): loop.create_future() for w in workers}
            for worker in workers:
                worker.send(order)
            if workers:
                await asyncio.wait(self._answers.values(), timeout=limit)
            answers = {serial: text.result() for (serial, _, _), text in self._answers.items() if text.done()}
            self._answers = {}
            return answers

    def heard(self, worker: WorkerProcess, result: CancelResult | StacksResult) -> None:
        """Takes a worker's answer."""
        text = self._answers.get((worker.serial, type(result), result.task))
        if text is not None and not text.done():
            text.set_result(result.text)
