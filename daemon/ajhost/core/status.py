"""The status of a host as frozen values, whose shape as JSON programs rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SERVING = "serving"
"""The state of a worker that is in the queue group and alive."""
DISCONNECTED = "disconnected"
"""The state of a worker that would serve and is not subscribed; its connection says why."""
CATCH_ALL = "catchall"
"""How the route `""` is called where a name is needed: routers ask for it by this word, and no route may have it."""


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """A process's connection to NATS: which server it is or was connected to, for how long it has been in this state,
    and why it is not subscribed.

    `reconnects` and `refused_replies` (for lack of permission) are counted since the process began.
    """

    state: str
    server: str
    since_s: float
    reason: str
    reconnects: int
    refused_replies: int = 0

    @property
    def subscribed(self) -> bool:
        """Whether the server has all its subscriptions."""
        return self.state == "subscribed"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task that runs: `running_s` in seconds, `deadline` as RFC 3339 text."""

    id: str
    type: str
    route: str
    state: str
    running_s: float
    deadline: str


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker process: its state, the tasks that run in it, and what it has counted since its start.

    `memory` is bytes, shared pages included; `cpu` the CPUs that it has used of late (1.0: one of them all the time).
    """

    slot: int
    pid: int
    generation: int
    state: str
    tasks: tuple[TaskStatus, ...]
    counts: Mapping[str, int]
    connection: ConnectionReport | None = None
    memory: int = 0
    cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """A route: what became of its requests since statistics began, and how it did of late.

    `per_second` (answers), `errors_per_second` and the quantiles (seconds; None without a task) are of the last
    `StatusReport.recent_s` seconds.
    """

    route: str
    received: int
    completed: int
    terminated: int
    failed: Mapping[str, int]
    refused: Mapping[str, int]
    running: int
    waiting: int
    per_second: float
    errors_per_second: float
    p50_s: float | None
    p99_s: float | None
    waiting_p99_s: float | None


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """The supervisor: the generation that it last made, and whether the host is ready.

    `version`, `settings` (the file) and `uptime_s` are of the host.
    """

    pid: int
    generation: int
    ready: bool
    version: str = ""
    settings: str = ""
    uptime_s: float = 0.0
    connection: ConnectionReport | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole host. `count` is how many slots are configured; a slot has two workers while one replaces the other."""

    supervisor: SupervisorStatus
    workers: tuple[WorkerStatus, ...]
    count: int
    routes: tuple[RouteStatus, ...] = field(default=())
    recent_s: float = 0.0

    @property
    def serving(self) -> int:
        """How many slots have a worker that serves."""
        return len({worker.slot for worker in self.workers if worker.state == SERVING})

    @property
    def complete(self) -> bool:
        """Whether every slot serves."""
        return 0 < self.count <= self.serving

    def as_object(self) -> dict[str, Any]:
        """`{"supervisor": {...}, "workers": [...], "routes": [...]}`, as `ajhost status --json` prints it."""
        return {
            "supervisor": asdict(self.supervisor),
            "workers": [asdict(worker) for worker in self.workers],
            "routes": [asdict(route) for route in self.routes],
            "slots": self.count,
            "serving": self.serving,
            "recent_s": self.recent_s,
        }
