"""Cancels one task for `ajhost cancel`: the process that has it (`roles/worker/intake.py`, `standby.py`) answers at
once, with `cancelled:` as AJ-Error or AJ-Terminate, and then cancels it. Finds that no such task is here.

The supervisor does not know which process that is. It asks every worker, and answers a task that waits in its own
ledger. A worker that does not answer the question hangs: the supervisor answers the task from that worker's ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ajhost.adapters.linux import processes
from ajhost.core.timings import CANCEL_ANSWER_LIMIT, STOP_LIMIT
from ajhost.ledger.layout import State
from ajhost.protocol.outcome import Failed, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.messages import CancelOrder, CancelResult
from ajhost.roles.supervisor.control_socket import Decision
from ajhost.roles.supervisor.standby import Standby
from ajhost.roles.supervisor.worker_pool import WorkerPool
from ajhost.roles.supervisor.worker_process import WorkerProcess

_log = logging.getLogger("ajhost.supervisor")
_ROUNDS = 3
"""How often all are asked: a task that waits may be on its way between two workers, or begin, while both are asked."""


async def obey_cancel(pool: WorkerPool, standby: Standby, asked: Mapping[str, object]) -> Decision:
    task, why = str(asked.get("task")), str(asked.get("reason"))
    text = FailureReason.CANCELLED.text(why)
    outcome = Terminated(text) if asked.get("terminate") else Failed(text)
    if not (found := await _cancel(pool, standby, task, outcome)):
        return Decision(False, f"no task {task!r} runs or waits on this host; it may have ended, or be another host's")
    standby.transport.out.flush()  # before the operator gets the decision, as a worker does
    _log.warning("task %s, which was %s, is cancelled: %s", task, found, why)
    return Decision(True, f"cancelled, it was {found}")


async def _cancel(pool: WorkerPool, standby: Standby, task: str, outcome: Failed | Terminated) -> str:
    """Returns what the task was, `running` or `waiting`; an empty text if no task of that id is here."""
    order = CancelOrder(task, isinstance(outcome, Terminated), outcome.text)
    for _ in range(_ROUNDS):
        asked = dict(pool.workers)
        answers = await pool.inquiry.ask(asked.values(), order, CancelResult, CANCEL_ANSWER_LIMIT)
        if found := next((found for found in answers.values() if found), ""):
            return found
        silent = [worker for serial, worker in asked.items() if serial not in answers and not worker.dead]
        if any(_answer_for(worker, task, outcome, standby) for worker in silent):
            return "running"
        if standby.cancel(task, outcome):
            return "waiting"
    return ""


def _answer_for(worker: WorkerProcess, task: str, outcome: Failed | Terminated, standby: Standby) -> bool:
    """Answers a task for a worker that hangs, and revokes it. Returns whether the task runs there."""
    # stopped: a worker that goes on between the look and the revocation would answer as well
    with processes.standing_still(worker.pidfd, worker.pid, STOP_LIMIT):
        for entry in worker.ledger.used():
            if entry.id == task and entry.state is State.STARTED and not entry.revoked:
                standby.answer_for(worker.ledger, entry, outcome)
                return True
    return False
