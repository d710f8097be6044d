"""The status of a host as frozen values, whose shape as JSON programs rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SERVING = "serving"
"""The state of a worker that is in the queue group and alive."""


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
    """A worker process: its state, the tasks that run in it, and what it has counted since its start."""

    slot: int
    pid: int
    generation: int
    state: str
    tasks: tuple[TaskStatus, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """The supervisor: the generation that it last made, and whether it has reported that all serve."""

    pid: int
    generation: int
    ready: bool


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole host. `count` is how many slots are configured; a slot has two workers while one replaces the other."""

    supervisor: SupervisorStatus
    workers: tuple[WorkerStatus, ...]
    count: int

    @property
    def serving(self) -> int:
        """How many slots have a worker that serves."""
        return len({worker.slot for worker in self.workers if worker.state == SERVING})

    @property
    def complete(self) -> bool:
        """Whether every slot serves."""
        return 0 < self.count <= self.serving

    def as_object(self) -> dict[str, Any]:
        """`{"supervisor": {...}, "workers": [...]}`, as `ajhost status --json` prints it."""
        return {"supervisor": asdict(self.supervisor), "workers": [asdict(w) for w in self.workers]}
