"""The status of a host, as values, in words and as JSON: the state of each worker (`disconnected`, `leaving`), its
connection and its tasks; the routes; a drain. `roles/status_reader.py` reads what it is made of.

Operators' programs rely on the JSON's shape. Its words for a NATS connection are also for systemd's line and /readyz.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ajhost.core.connection_table import LOCKS_OUT, TRYING
from ajhost.core.fleet import WorkerState, state_of
from ajhost.ledger.connection_status import ConnectionState, ConnectionStatus
from ajhost.ledger.layout import Phase, Word
from ajhost.ledger.view import Entry, Ledger
from ajhost.protocol.dataclass_json import from_object
from ajhost.protocol.timestamps import render

SERVING = "serving"
"""The state of a worker that is in the queue group and alive."""
DISCONNECTED = "disconnected"
"""The state of a worker that is to serve and is not subscribed; its connection has the reason."""
CATCH_ALL = "catchall"
"""The name of the route `""` where one is needed: routers use this word in its subject, and no route may have it."""


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """A process's connection to NATS.

    `state` is `connected` when the server has all subscriptions, else a `ConnectionState` in lower case. A process that
    was locked out stays `locked_out` during its next attempt. `server` is the present or the next one. `since_s`: for
    how long the process has been connected, or has not been; `reason`: why it is not. `reconnects` and
    `refused_replies` (for lack of permission) are counted since the process began.
    """

    state: str
    server: str
    since_s: float
    reason: str
    reconnects: int
    refused_replies: int = 0

    @classmethod
    def of(cls, status: ConnectionStatus, now_ns: int) -> Self:
        """Makes the report from the status in a process's ledger. `now_ns` is monotonic."""
        since_ns = status.unsubscribed_since_ns or status.since_ns
        return cls(
            _state(status),
            status.server,
            max(now_ns - since_ns, 0) / 1e9 if since_ns else 0.0,
            "" if status.subscribed else status.text,
            status.reconnects,
            status.refused_replies,
        )

    def __str__(self) -> str:
        """Returns `127.0.0.1:4222 for 3 h, 2 reconnects`, or the state if it is another, with the reason."""
        how_long = duration(self.since_s)
        if self.state == "connected":
            again = f", {self.reconnects} reconnect{'' if self.reconnects == 1 else 's'}" if self.reconnects else ""
            return f"{self.server} for {how_long}{again}"
        reason = f": {self.reason}" if self.reason else ""
        where = f" ({self.server})" if self.server and self.server not in self.reason else ""
        return f"{self.state.replace('_', ' ')} for {how_long}{where}{reason}"


def _state(status: ConnectionStatus) -> str:
    if status.state is ConnectionState.SUBSCRIBED:
        return "connected"
    if status.state in TRYING and status.reason in LOCKS_OUT:
        return ConnectionState.LOCKED_OUT.name.lower()
    return status.state.name.lower()


def duration(seconds: float) -> str:
    """Returns a duration like `12 s`, `3 min 20 s`, `5 h 2 min` or `12 d 3 h`."""
    whole = int(seconds)
    for large, small, name, smaller in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A running task: `running_s` in seconds, `deadline` as RFC 3339 text."""

    id: str
    type: str
    route: str
    state: str
    running_s: float
    deadline: str

    @classmethod
    def of(cls, entry: Entry, routes: Sequence[str], now_ns: int, wall_ns: int) -> Self:
        """Makes the status of an entry. `routes`: their names, by number. Both times are now: monotonic, and Unix."""
        route = routes[entry.route] if entry.route < len(routes) else ""
        state = "overdue" if 0 < entry.deadline_ns <= now_ns else "running"
        # the two clocks are read at different moments: digits below a millisecond would differ from call to call
        deadline = render(round(wall_ns + entry.deadline_ns - now_ns, -6))
        return cls(entry.id, entry.type, route, state, max(now_ns - entry.started_ns, 0) / 1e9, deadline)


def worker_state(ledger: Ledger) -> str:
    """Returns a worker's state as the supervisor has stored it; that it leaves or is disconnected, from its own words.

    Of a worker of an earlier start the supervisor stores only that it hangs.
    """
    phase, state = ledger.words[Word.PHASE], state_of(ledger.words[Word.WORKER_STATE])
    if state is WorkerState.HUNG:
        return str(state.value)
    if phase == Phase.LEAVING:
        return WorkerState.LEAVING.value
    if state is None:
        state = WorkerState.SERVING if phase == Phase.SERVING else WorkerState.STARTING
    if state is WorkerState.SERVING and not ledger.connection().subscribed:
        return DISCONNECTED
    return str(state.value)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker process: its state, the tasks that it runs, and its counters since its start.

    `memory` is bytes, shared pages included. `cpu`: how many CPUs it has used of late (1.0: one of them all the time).
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
    """A route: the outcomes of its requests since statistics began, and its recent rates and times.

    `per_second` (answers), `errors_per_second` and the quantiles (seconds; None without a task) cover the last
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
    """The supervisor: its last generation, and whether the host is ready.

    `version`, `settings` (the file, if there is one) and `uptime_s` are those of the host. `last_death` says which
    worker or template last died out of order, and how, `died_s` ago. `silent_s`: for how long the supervisor's loop has
    given no sign of life, 0 while it does. A silent supervisor obeys no operator, while its workers serve. `stopping`:
    the host stops in order. `last_replaced` says which worker was last replaced in order, and why, `replaced_s` ago.
    `drain_by`: the user who asked for the drain, `drain_s` ago.
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
    """Returns the state of a draining host in words. `left`: tasks without an answer, or whose answer has not left."""
    if drained:
        return "drained"
    return f"draining: {left} task{'' if left == 1 else 's'} left"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole host. `count`: configured slots; a slot has two workers while one replaces the other.

    `draining`: an operator has taken the host out of the queue group; `left`: tasks that it still holds; `drained`: it
    has left the group, and holds none.
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
        """Returns how many slots have a worker that serves."""
        return len({worker.slot for worker in self.workers if worker.state == SERVING})

    @property
    def complete(self) -> bool:
        """Whether every slot serves."""
        return 0 < self.count <= self.serving

    @classmethod
    def from_object(cls, body: dict[str, Any]) -> Self:
        """Returns the report of an `as_object` of this or a later version. Raises KeyError or TypeError for others."""
        return from_object(cls, {**body, "count": body["slots"]}, lenient=True)

    def as_object(self) -> dict[str, Any]:
        """Returns `{"supervisor": {...}, "workers": [...], ...}`, as `ajhost status --json` prints it."""
        body = asdict(self) | {"slots": self.count, "serving": self.serving}
        order = ("supervisor", "workers", "routes", "slots", "serving", "recent_s", "draining", "drained", "left")
        return {name: body[name] for name in order}
