"""The status of a host as frozen values, whose shape as JSON programs rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ajhost.core.connection_report import ConnectionReport
from ajhost.protocol.dataclass_json import from_object

SERVING = "serving"
"""The state of a worker that is in the queue group and alive."""
DISCONNECTED = "disconnected"
"""The state of a worker that would serve and is not subscribed; its connection says why."""
CATCH_ALL = "catchall"
"""How the route `""` is called where a name is needed: routers ask for it by this word, and no route may have it."""


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

    `version`, `settings` (the file, if there is one) and `uptime_s` are of the host. `last_death` names the worker or
    template that died last, otherwise than in order, and how; it was `died_s` ago. `silent_s` is how long its loop has
    given no sign of life, 0 while it does: workers serve on, and nobody does what an operator asks for. `stopping`: in
    order. `last_replaced`: the worker that was replaced in order last, and why, `replaced_s` ago. `drain_by`: who asked
    for the drain, `drain_s` ago.
    """

    pid: int
    generation: int
    ready: bool
    version: str = ""
    settings: str = ""
    uptime_s: float = 0.0
    connection: ConnectionReport | None = None
    last_death: str = ""
    died_s: float = 0.0
    silent_s: float = 0.0
    stopping: bool = False
    last_replaced: str = ""
    replaced_s: float = 0.0
    drain_by: str = ""
    drain_s: float = 0.0


def drain_text(left: int, *, drained: bool) -> str:
    """What a host that drains says of itself. `left`: tasks that have no answer yet, or one that has not left."""
    if drained:
        return "drained"
    return f"draining: {left} task{'' if left == 1 else 's'} left"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole host. `count` is how many slots are configured; a slot has two workers while one replaces the other.

    `draining`: an operator has taken the host out of the queue group; `left` tasks are held; `drained`: none any more.
    """

    supervisor: SupervisorStatus
    workers: tuple[WorkerStatus, ...]
    count: int
    routes: tuple[RouteStatus, ...] = field(default=())
    recent_s: float = 0.0
    draining: bool = False
    drained: bool = False
    left: int = 0

    @property
    def serving(self) -> int:
        """How many slots have a worker that serves."""
        return len({worker.slot for worker in self.workers if worker.state == SERVING})

    @property
    def complete(self) -> bool:
        """Whether every slot serves."""
        return 0 < self.count <= self.serving

    @classmethod
    def from_object(cls, body: dict[str, Any]) -> Self:
        """The report that `as_object` gave, of this version or a later one. Raises KeyError or TypeError for others."""
        return from_object(cls, {**body, "count": body["slots"]}, lenient=True)

    def as_object(self) -> dict[str, Any]:
        """`{"supervisor": {...}, "workers": [...], "routes": [...]}`, as `ajhost status --json` prints it."""
        return {
            "supervisor": asdict(self.supervisor),
            "workers": [asdict(worker) for worker in self.workers],
            "routes": [asdict(route) for route in self.routes],
            "slots": self.count,
            "serving": self.serving,
            "recent_s": self.recent_s,
            "draining": self.draining,
            "drained": self.drained,
            "left": self.left,
        }
