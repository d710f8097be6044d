"""`<runtime>/state.json`: who supervises, which generation, how many slots, and the routes' names. Replaced atomically.

Together with the ledgers it is all that `ajhost status` reads, so status works while the supervisor itself hangs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

_NAME = "state.json"


@dataclass(frozen=True, slots=True)
class HostState:
    """`routes` maps a generation to its routes in the order that ledger entries count in."""

    pid: int
    generation: int
    ready: bool
    count: int
    routes: Mapping[int, Sequence[str]] = field(default_factory=dict)


def write(directory: Path, state: HostState) -> None:
    """Replaces the file."""
    body = {
        "pid": state.pid,
        "generation": state.generation,
        "ready": state.ready,
        "count": state.count,
        "routes": {str(generation): list(routes) for generation, routes in state.routes.items()},
    }
    new = directory / f"{_NAME}.new"
    new.write_bytes(orjson.dumps(body))
    os.replace(new, directory / _NAME)


def read(directory: Path) -> HostState | None:
    """The state as last written; None when there is none that can be read."""
    try:
        body = orjson.loads((directory / _NAME).read_bytes())
        routes = {int(generation): tuple(names) for generation, names in body["routes"].items()}
        return HostState(
            int(body["pid"]), int(body["generation"]), bool(body["ready"]), int(body["count"]), routes
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
