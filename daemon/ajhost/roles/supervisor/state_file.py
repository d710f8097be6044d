"""Writes and reads `<runtime>/state.json`: the supervisor's pid, generation, slots, routes, whether it is drained, the
last death and the last worker that was replaced. `ajhost status` reads it and shared memory, and asks no process, so it
works while the supervisor hangs. Says whether a host runs on the settings file that a command means (`-c`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from ajhost.adapters.linux import runtime_directory
from ajhost.protocol.dataclass_json import from_object

NAME = "state.json"


@dataclass(frozen=True, slots=True)
class HostState:
    """`routes` maps a generation to its routes in the order that ledger entries count in.

    `settings` (the file; empty if all are in the environment) and `version` are of the host, `started_ns` is when its
    supervisor began (monotonic). `waiting`: why no server lets the host in, while it waits for its first one.
    `draining`: an operator has taken the host out of the queue group; the next start begins so, unless this one has
    ended in order. `last_death`: of a worker or a template, in words; `last_replaced`: of a worker, in order.
    `drain_by`: who asked for the drain. Times ending in `_at` are seconds since 1970. `stopping`: in order.
    """

    pid: int
    generation: int
    ready: bool
    count: int
    routes: Mapping[int, Sequence[str]]
    settings: str = ""
    version: str = ""
    started_ns: int = 0
    waiting: str = ""
    draining: bool = False
    last_death: str = ""
    died_at: float = 0.0
    stopping: bool = False
    last_replaced: str = ""
    replaced_at: float = 0.0
    drain_by: str = ""
    drain_at: float = 0.0


def write(directory: Path, state: HostState) -> object:
    """Replaces the file atomically. Returns which file it is now (see `which`)."""
    content = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
    runtime_directory.replace_file(directory, NAME, content)
    return which(directory)


def which(directory: Path) -> object:
    """Returns what tells this file, and this content of it, from another; None if there is none."""
    try:
        found = (directory / NAME).lstat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def another_host(directory: Path, runs_on: Path, meant: str | Path) -> str | None:
    """Returns an error text if the host on `directory`, whose settings are `runs_on`, is not the one of `meant`."""
    if "\0" not in str(meant) and os.path.realpath(meant) == os.path.realpath(runs_on):
        return None
    return f"the host on {directory} runs on {runs_on}, not on {meant}"


def read(directory: Path) -> HostState | None:
    """Returns the state as last written; None when there is none that can be read."""
    try:
        found = orjson.loads(runtime_directory.read_file(directory, NAME))
        return from_object(HostState, found, lenient=True)
    except (OSError, ValueError, TypeError):
        return None
