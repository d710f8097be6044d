"""Gets the stacks for `ajhost stacks`: of running tasks from their workers (`roles/worker/stacks.py`), of imports under
way (`import_stacks.py`), and of a worker that does not answer, and so hangs, from C by a signal (SIGUSR2,
faulthandler), which needs neither its loop nor the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ajhost.adapters.own_code import PACKAGE
from ajhost.core.timings import STACKS_ANSWER_LIMIT, STACKS_BEFORE_KILL
from ajhost.ledger.layout import State
from ajhost.ledger.view import Entry
from ajhost.roles.messages import StacksOrder, StacksResult
from ajhost.roles.supervisor.control_socket import Decision, no_worker
from ajhost.roles.supervisor.template_process import TemplateProcess
from ajhost.roles.supervisor.worker_pool import WorkerPool
from ajhost.roles.supervisor.worker_process import WorkerProcess

_OURS = f'  File "{PACKAGE}'
_THREAD = re.compile(r"^(?=(?:Current thread|Thread) 0x)", re.MULTILINE)


async def obey_stacks(pool: WorkerPool, asked: Mapping[str, object]) -> Decision:
    """Returns the stacks of one task, of one slot, or of all."""
    task, slot = str(asked.get("task") or ""), asked.get("slot")
    parts = [] if task or slot is not None else await _of_imports()
    chosen = [w for w in pool.workers.values() if w.pid and (slot is None or w.slot == slot)]
    if not chosen and not parts:
        return no_worker(slot)
    answers = await pool.inquiry.ask(chosen, StacksOrder(task), StacksResult, STACKS_ANSWER_LIMIT)
    silent = {w.serial: _running(w, task) for w in chosen if w.serial not in answers and w.pidfd >= 0}
    stacks = await _by_signal([w for w in chosen if silent.get(w.serial)])
    for worker in sorted(chosen, key=lambda w: (w.slot, w.serial)):
        if text := answers.get(worker.serial):
            parts.append(f"{worker}\n\n{text}")
        elif tasks := silent.get(worker.serial):
            head = f"{worker} hangs: it does not answer"
            parts.append("\n\n".join((head, "\n".join(_heads(tasks)), stacks[worker.serial])))
    if not parts:
        return Decision(False, f"no task {task!r} runs on this host" if task else "no task runs")
    return Decision(True, "\n\n".join(parts))


async def _of_imports() -> list[str]:
    """Returns a text for each template that imports the handlers now, with its stacks."""
    return [
        f"the template (pid {template.pid}) imports the handlers\n\n{text}"
        for template in list(TemplateProcess.loading)
        if (text := await template.stacks())
    ]


async def _by_signal(workers: Sequence[WorkerProcess]) -> dict[int, str]:
    """Returns the stacks of hanging workers, by serial."""
    for worker in workers:
        worker.ask_for_stacks()
    if workers:
        await asyncio.sleep(STACKS_BEFORE_KILL)
    return {w.serial: _shown(w.stacks()) or "  the stacks of its threads are in its log" for w in workers}


def _running(worker: WorkerProcess, task: str) -> list[Entry]:
    """Returns what runs in a worker by its ledger: the task of this id, or all for an empty one."""
    entries = (entry for entry in worker.ledger.used() if entry.state is State.STARTED)
    return [entry for entry in entries if task in ("", entry.id)]


def _heads(entries: Iterable[Entry]) -> Iterator[str]:
    now_ns = time.monotonic_ns()
    for entry in sorted(entries, key=lambda entry: entry.started_ns):
        left_s = (entry.deadline_ns - now_ns) / 1e9
        until = f"{left_s:.1f} s to its deadline" if left_s > 0 else "past its deadline"
        since_s = (now_ns - entry.started_ns) / 1e9
        yield f"task {entry.id} (type {entry.type}) runs for {since_s:.1f} s, {until}"


def _shown(stacks: str) -> str:
    """Returns the threads with frames that are not ajhost's, and only those frames."""
    parts = []
    for thread in _THREAD.split(stacks):
        lines = [line for line in thread.splitlines() if line.strip() and not line.startswith(_OURS)]
        if len(lines) > 1:
            parts.append("\n".join(f"  {line}" for line in lines))
    return "\n".join(parts)
