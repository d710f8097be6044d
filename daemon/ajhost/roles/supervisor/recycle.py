"""Replaces the worker of one slot, or of each slot, in order, for `ajhost recycle`: not one that starts or leaves
already. Finds that no worker lives in the slot.
"""

from __future__ import annotations

from collections.abc import Mapping

from ajhost.core.fleet import WorkerState
from ajhost.roles.supervisor.control_socket import Decision, no_worker
from ajhost.roles.supervisor.worker_pool import WorkerPool


async def obey_recycle(pool: WorkerPool, asked: Mapping[str, object]) -> Decision:
    slot = asked.get("slot")
    known = [m for m in pool.fleet.members.values() if slot is None or m.slot == slot]
    if not known:
        return no_worker(slot)
    # a worker that leaves is being replaced already, and one that starts is new
    serials = [m.serial for m in known if m.state not in (WorkerState.LEAVING, WorkerState.STARTING)]
    pool.recycle([pool.workers[s] for s in serials if s in pool.workers], "an operator asked for it")
    slots = sorted({m.slot for m in known})
    names = f"slot {slots[0]}" if len(slots) == 1 else f"slots {', '.join(map(str, slots))}"
    return Decision(True, f"being replaced: the worker{'' if len(slots) == 1 else 's'} of {names}")
