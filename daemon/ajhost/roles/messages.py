"""Every message on the channels between supervisor, templates and workers, and its way through JSON. A
`GenerationSpec`, which is a part of some, composes the names that the host's connections have in a server's lists.

On a channel a message is an object with one key, its class, whose value has the fields. Both ends run the same version
of ajhost as a rule; `decode` says what is wrong if they do not.

The specs in an order to a template hold secrets. They travel over a channel, never in arguments or the environment,
which other users can read.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import orjson

from ajhost.adapters.nats.tls import Trust
from ajhost.protocol.dataclass_json import annotations_of, from_object
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.template.import_effects import ImportEffect
from ajhost.settings.sections import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    WorkerSettings,
)

# -- supervisor to worker ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaveOrder:
    """Leave the queue group. `stop`: the whole host stops, so what waits in the queues is finished too."""

    stop: bool


@dataclass(frozen=True, slots=True)
class MembershipOrder:
    """Be in the queue group, or out of it, and say so: `WorkerReady` or `GroupLeft`. All else goes on."""

    joins: bool


@dataclass(frozen=True, slots=True)
class FinishOrder:
    """End as soon as nothing is left: no process enqueues any more."""


@dataclass(frozen=True, slots=True)
class HurryOrder:
    """Answer now for what is left, and end."""


@dataclass(frozen=True, slots=True)
class SocketStored:
    """The supervisor has the duplicate of the connection of this epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """Answer with `text` for the task of this id, as AJ-Terminate or AJ-Error, and cancel it."""

    task: str
    terminate: bool
    text: str


@dataclass(frozen=True, slots=True)
class AccessOrder:
    """Connect with these servers and credentials from now on. `move`: leave the present connection for that, if there
    is one and the worker serves.
    """

    nats: NatsSettings
    move: bool


@dataclass(frozen=True, slots=True)
class StacksOrder:
    """Tell what the task of this id is doing; an empty id stands for all that run."""

    task: str


ToWorker = (
    LeaveOrder | MembershipOrder | FinishOrder | HurryOrder | SocketStored | CancelOrder | AccessOrder | StacksOrder
)  # fmt: skip

# -- worker to supervisor ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewSocket:
    """A duplicate of the worker's new connection, which has this epoch, comes with this."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StacksFile:
    """The worker's first message: the file into which SIGUSR2 has it write its stacks, from C, comes with this."""


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker is in the queue group: the server has its subscriptions."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The worker cannot serve, for a reason of the application's. It ends after this message."""

    why: str


@dataclass(frozen=True, slots=True)
class RecycleRequest:
    """The worker wants to be replaced in order; `why` is for the log."""

    why: str


@dataclass(frozen=True, slots=True)
class GroupLeft:
    """The worker is out of the queue group: the server has confirmed it, or never had a subscription of it."""


@dataclass(frozen=True, slots=True)
class CancelResult:
    """What was done with the task to be cancelled: `running`, `waiting`, or an empty text if it is not here."""

    task: str
    text: str


@dataclass(frozen=True, slots=True)
class StacksResult:
    """What the task of this id (all, if empty) is doing, for people; an empty text if it does not run here."""

    task: str
    text: str


FromWorker = (
    NewSocket | StacksFile | WorkerReady | StartFailed | RecycleRequest | GroupLeft | CancelResult | StacksResult
)  # fmt: skip

# -- supervisor to template -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """All that a template and its workers need to know. `runtime` is the runtime directory."""

    generation: int
    runtime: Path
    nats: NatsSettings
    python: PythonSettings
    workers: WorkerSettings
    handlers: tuple[HandlerSettings, ...]
    signature: SignatureSettings = field(default_factory=SignatureSettings)
    log: LogSettings = field(default_factory=LogSettings)
    schemas: bool = False
    """Whether what is loaded is described with the JSON Schemas of its payloads."""
    tell_trust: bool = False
    """Whether the connection depends on the authorities that the handlers' interpreter trusts."""

    def connection_name(self, role: str) -> str:
        """Returns the name of a process's connection in the server's lists: role, machine, and the host's directory."""
        return f"ajhost {role} on {socket.gethostname()}, {self.runtime}"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker to be forked: its slot, the serial that names its ledger, and that of the supervisor's.

    `supervisor_place` is where the supervisor's ledger can be opened too (`LockedLedger.place`). `joins`: whether it is
    to be in the queue group.
    """

    slot: int
    serial: int
    generation: int
    supervisor: int
    supervisor_place: str = ""
    joins: bool = True


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """The first message: import the handlers of this generation."""

    spec: GenerationSpec


@dataclass(frozen=True, slots=True)
class NewQueues:
    """More shared queues; for each name the receiving and the sending end come with this."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForkOrder:
    """Fork this worker; the worker's end of its channel comes with this."""

    worker: WorkerSpec


ToTemplate = LoadOrder | NewQueues | ForkOrder

# -- template to supervisor -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HandlersLoaded:
    """The handlers, and what their imports left behind."""

    handlers: tuple[HandlerDescription, ...]
    effects: tuple[ImportEffect, ...]
    trust: Trust | None = None
    """The authorities that the interpreter trusts, if the spec asked for them."""


@dataclass(frozen=True, slots=True)
class LoadProblems:
    """Why there are no handlers. `template/bootstrap.py` writes this one without this module."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkerForked:
    """The worker with this serial exists; its pidfd comes with this, from the middle process of the two forks."""

    serial: int
    pid: int


@dataclass(frozen=True, slots=True)
class ForkRefused:
    """There is no worker with this serial."""

    serial: int
    problem: str


FromTemplate = HandlersLoaded | LoadProblems | WorkerForked | ForkRefused

# ----------------------------------------------------------------------------------------------------------------------

Message = ToWorker | FromWorker | ToTemplate | FromTemplate
_M = TypeVar("_M")


class BadMessage(ValueError):
    """An object is no message for this end. The text says why, without what it held (a spec has secrets)."""


class Vocabulary(Generic[_M]):
    """The messages that one end of a channel understands."""

    def __init__(self, kinds: tuple[type[_M], ...]) -> None:
        self.kinds = {kind.__name__: kind for kind in kinds}

    def prepare(self) -> None:
        """Resolves the annotations that `decode` needs, rather than in each fork of this process."""
        kinds: Iterable[Any] = self.kinds.values()
        for kind in kinds:
            annotations_of(kind)

    def decode(self, found: Mapping[str, Any]) -> _M:
        """Returns the message that `encode` made an object of.

        :raises BadMessage: it is none of this vocabulary.
        """
        name = next(iter(found), "")
        kind = self.kinds.get(name)
        if kind is None or len(found) != 1:
            raise BadMessage(f"a message {sorted(found)}, where one of {', '.join(self.kinds)} is understood")
        try:
            return from_object(kind, found[name])
        except TypeError as error:
            raise BadMessage(f"a {name} that cannot be read: {error}") from None


FOR_WORKER: Vocabulary[ToWorker] = Vocabulary(get_args(ToWorker))
FROM_WORKER: Vocabulary[FromWorker] = Vocabulary(get_args(FromWorker))
FOR_TEMPLATE: Vocabulary[ToTemplate] = Vocabulary(get_args(ToTemplate))
FROM_TEMPLATE: Vocabulary[FromTemplate] = Vocabulary(get_args(FromTemplate))


def encode(message: Message) -> dict[str, object]:
    """Returns the object that a channel carries."""
    return {type(message).__name__: orjson.Fragment(orjson.dumps(message, default=str))}
