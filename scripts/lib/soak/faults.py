"""The kinds of faults, and how often each comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from scripts.lib.soak.process_faults import (
    kill_again,
    kill_daemon,
    kill_template,
    kill_worker,
    kill_workers,
    misbehaving,
    reload_broken,
    reload_good,
    stop_worker,
)
from scripts.lib.soak.server_faults import (
    locked_out,
    permissions_are_lost,
    secret_is_truncated,
    server_beside_is_false,
    server_fault,
    server_is_a_black_hole,
    server_is_a_lame_duck,
    server_is_silent,
    server_stands_still,
)
from scripts.lib.soak.stage import Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault and how often it comes, relative to the others."""

    name: str
    act: Callable[[Stage], Awaitable[None]]
    weight: int


FAULTS = (
    Fault("kill a worker", kill_worker, 30),
    Fault("kill all workers", kill_workers, 5),
    Fault("kill again and again", kill_again, 5),
    Fault("kill the template", kill_template, 3),
    Fault("stop a worker", stop_worker, 8),
    Fault("blocked loop", misbehaving("blocked loop", "block", 0.2, 8), 8),
    Fault("GIL held in C", misbehaving("GIL held in C", "gil", 0.2, 8), 5),
    Fault("stuck thread", misbehaving("stuck thread", "thread", 5, 12), 5),
    Fault("swallowed cancellation", misbehaving("swallowed cancellation", "deaf", 5, 12), 3),
    Fault("forked child", misbehaving("forked child", "fork", 0, 1), 5),
    Fault("crash", misbehaving("crash", "crash", 0, 0), 6),
    Fault("good reload", reload_good, 6),
    Fault("broken reload", reload_broken, 5),
    Fault("nats-server", server_fault, 4),
    Fault("nats-server stands still", server_stands_still, 5),
    Fault("nats-server silent", server_is_silent, 1),
    Fault("nats-server in a black hole", server_is_a_black_hole, 1),
    Fault("false server beside", server_beside_is_false, 1),
    Fault("nats-server lame duck", server_is_a_lame_duck, 1),
    Fault("permissions lost", permissions_are_lost, 1),
    Fault("locked out", locked_out, 1),
    Fault("secret truncated", secret_is_truncated, 1),
)
DAEMON_FAULT = Fault("kill the daemon", kill_daemon, 5)
