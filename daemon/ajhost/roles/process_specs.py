"""What the supervisor hands to the processes of a generation: frozen values (`messages.py` has their way through JSON).

A spec holds secrets. It travels over a channel, never in arguments or the environment, which other users can read.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from ajhost.settings.sections import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    WorkerSettings,
)


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
    queues: tuple[str, ...] = ()
    schemas: bool = False
    """Whether what is loaded is described with the JSON Schemas of its payloads."""
    tell_trust: bool = False
    """Whether the connection depends on the authorities that the handlers' interpreter trusts."""


def connection_name(role: str, runtime: Path) -> str:
    """Returns the name of a process's connection in the server's lists: role, machine, and the host's directory."""
    return f"ajhost {role} on {socket.gethostname()}, {runtime}"


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
