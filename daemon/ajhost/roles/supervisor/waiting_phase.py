"""The supervisor before a NATS server has let it in, without workers. `running_phase.py` follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ajhost.ledger.view import Ledger
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.supervisor.control_socket import Decision
from ajhost.roles.supervisor.readiness import starting_text
from ajhost.roles.supervisor.shutdown import Shutdown
from ajhost.roles.supervisor.worker_process import WorkerProcess


class SupervisorPhase:
    """The interface of a phase, and the phase that has no standby and no workers.

    `waiting`: why no server lets the host in.
    """

    def __init__(self) -> None:
        self.ready = False
        """Whether every slot has had a worker in place (serving or drained) at one time."""
        self.waiting = ""

    @property
    def ledgers(self) -> Sequence[Ledger]:
        """The supervisor's own ledger, as long as there is one."""
        return ()

    @property
    def retired(self) -> Sequence[Ledger]:
        """The ledgers of dead processes in which requests may wait."""
        return ()

    @property
    def idle(self) -> bool:
        """Whether the standby is out of the queue group, and nothing is left to recover."""
        return False

    def become_ready(self) -> bool:
        """Whether every slot has a worker in place now, for the first time."""
        return False

    def worker_died(self, worker: WorkerProcess, how: str) -> None:
        """Recovers what a dead worker held. Here there are no workers."""

    def apply_generation(self, spec: GenerationSpec) -> None:
        """Takes the handlers and limits of a reload."""

    async def cancel(self, asked: Mapping[str, object]) -> Decision:
        """Cancels a task for an operator. Here none runs."""
        del asked
        return Decision(False, starting_text(self.waiting))

    async def stop(self, shutdown: Shutdown, drain_timeout: float) -> None:
        """Stops the host (`Shutdown.run`). Here there is nothing to stop."""
