"""The supervisor before a NATS server has let it in, without workers. The next phase is `running_phase.Running`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ajhost.ledger.view import Ledger
from ajhost.roles.process_specs import GenerationSpec
from ajhost.roles.supervisor.control_socket import Decision
from ajhost.roles.supervisor.readiness import starting_text
from ajhost.roles.supervisor.shutdown import Shutdown
from ajhost.roles.supervisor.worker_process import WorkerProcess


class SupervisorPhase:
    """What a phase of the supervisor answers and does, as it is without a standby and without workers.

    `waiting`: why no server lets the host in.
    """

    def __init__(self) -> None:
        self.ready = False
        """Whether every slot has served."""
        self.waiting = ""

    @property
    def ledgers(self) -> Sequence[Ledger]:
        """The supervisor's own."""
        return ()

    @property
    def retired(self) -> Sequence[Ledger]:
        """Those of dead workers, in which requests may wait."""
        return ()

    @property
    def subscriptions(self) -> int:
        """How often the standby has subscribed as the last resort."""
        return 0

    @property
    def idle(self) -> bool:
        """Whether the standby is out of the queue group, and nothing is left to recover."""
        return False

    def become_ready(self) -> bool:
        """Whether every slot serves now, for the first time."""
        return False

    def worker_died(self, worker: WorkerProcess, how: str) -> None:
        """There is none."""

    def apply_generation(self, spec: GenerationSpec) -> None:
        """Takes the handlers and limits of a reload."""

    async def cancel(self, asked: Mapping[str, object]) -> Decision:
        """What the control socket was asked for: a task is cancelled."""
        del asked
        return Decision(False, starting_text(self.waiting))

    async def stop(self, shutdown: Shutdown, drain_timeout: float) -> None:
        """Returns when no worker lives and every answer has left."""
