"""What running tasks are doing: the supervisor asks the workers, which look at themselves.

A worker that does not answer hangs: its stacks come from C into its log (SIGUSR2, faulthandler), which needs neither
its loop nor the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping

from ajhost.adapters.linux import processes
from ajhost.core.timings import STACKS_ANSWER_LIMIT
from ajhost.roles.messages import StacksOrder, StacksResult
from ajhost.roles.supervisor.decision import Decision
from ajhost.roles.supervisor.inquiry import Inquiry
from ajhost.roles.supervisor.worker_process import WorkerProcess


class Inspector:
    """`workers`: the living ones by the serial of their ledger; `inquiry` asks them."""

    def __init__(self, workers: Mapping[int, WorkerProcess], inquiry: Inquiry) -> None:
        self._workers, self._inquiry = workers, inquiry

    async def obey(self, asked: Mapping[str, object]) -> Decision:
        """What the control socket was asked for: the stacks of one task, of one slot, or of all."""
        task, slot = str(asked.get("task") or ""), asked.get("slot")
        chosen = [w for w in self._workers.values() if w.pid and (slot is None or w.slot == slot)]
        if not chosen:
            return Decision(False, "no worker lives" if slot is None else f"no worker lives in slot {slot}")
        answers = await self._inquiry.ask(chosen, StacksOrder(task), StacksResult, STACKS_ANSWER_LIMIT)
        parts = []
        for worker in sorted(chosen, key=lambda w: (w.slot, w.serial)):
            name = f"worker {worker.slot} (pid {worker.pid})"
            text = answers.get(worker.serial)
            if text is None:
                self._ask_from_c(worker)
                parts.append(f"{name} does not answer: the stacks of its threads are in its log")
            elif text:
                parts.append(f"{name}\n\n{text}")
        if not parts:
            return Decision(False, f"no task {task!r} runs on this host" if task else "no task runs")
        return Decision(True, "\n\n".join(parts))

    @staticmethod
    def _ask_from_c(worker: WorkerProcess) -> None:
        with contextlib.suppress(OSError):
            processes.pidfd_signal(worker.pidfd, signal.SIGUSR2)
