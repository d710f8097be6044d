"""Says of each slot that does not serve why not, for `/readyz`, and composes the line "Status" of `systemctl status`
and the text of a host that starts. `running_phase.py` decides when the host is ready for the first time.
"""

from __future__ import annotations

import time

from ajhost.core.fleet import IN_PLACE, WorkerState
from ajhost.core.status_report import ConnectionReport
from ajhost.ledger.connection_status import ConnectionStatus
from ajhost.roles.supervisor.worker_pool import WorkerPool

STOPPING = "the host is stopping"
_WAITING = (WorkerState.STARTING, WorkerState.HUNG)
"""States of a worker that may lack nothing but a connection."""


def unserved_slots(pool: WorkerPool, drain: str, waiting: str) -> list[str]:
    """Returns a line for each slot that does not serve, with what is there instead.

    `drain`: the text of a host that drains. `waiting`: why no server has let the host in, before there are slots.
    """
    if pool.fleet.stopping:
        return [STOPPING]
    if not pool.fleet.count:
        return [starting_text(waiting)]
    if drain:
        return [drain]
    lines = []
    for slot in range(pool.fleet.count):
        states = {m.state for m in pool.fleet.members.values() if m.slot == slot}
        if WorkerState.SERVING not in states:
            text = ", ".join(sorted(s.value for s in states)) or "no worker, a next try is due"
            why = "".join(f"; {lost}" for lost in _lost_connections(pool, slot, *_WAITING)[:1])
            lines.append(f"slot {slot} does not serve: {text}{why}")
        elif lost := _lost_connections(pool, slot):
            lines.append(f"slot {slot} does not serve: {lost[0]}")
    return lines


def starting_text(waiting: str) -> str:
    """Returns the text of a host that has no worker yet. `waiting`: why no server has let it in, if none has."""
    return f"the host is starting; {f'NATS: {waiting}' if waiting else 'the handlers are being imported'}"


def status_line(pool: WorkerPool, drain: str) -> str:
    """Returns what `systemctl status` shows. `drain`: the text of a host that drains."""
    tasks = sum(m.ledger.running() for m in pool.workers.values())
    lost = [text for slot in range(pool.fleet.count) for text in _lost_connections(pool, slot)[:1]]
    serving = max(pool.fleet.serving() - len(lost), 0)
    why = f"; NATS: {lost[0]}" if lost else ""
    return f"{drain or f'{serving} of {pool.fleet.count} workers serve, {tasks} tasks run'}{why}"


def _lost_connections(pool: WorkerPool, slot: int, *states: WorkerState) -> list[str]:
    """Returns the connection reports of a slot's workers in these states (`IN_PLACE`); none if one is subscribed."""
    wanted = states or IN_PLACE
    serials = [m.serial for m in pool.fleet.members.values() if m.slot == slot and m.state in wanted]
    found: list[ConnectionStatus] = [
        pool.workers[serial].ledger.connection() for serial in serials if serial in pool.workers
    ]
    if any(status.subscribed for status in found):
        return []
    now_ns = time.monotonic_ns()
    return [str(ConnectionReport.of(status, now_ns)) for status in found]
