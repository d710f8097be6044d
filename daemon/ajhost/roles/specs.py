"""What the supervisor hands to the processes of a generation: frozen values, and their way through JSON.

A plan holds secrets. It travels over a channel, never in arguments or the environment, which others can read.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

from ajhost.settings.values import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    WorkerSettings,
)

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """All that a template and its workers need to know. `runtime` is the runtime directory."""

    generation: int
    runtime: Path
    nats: NatsSettings
    python: PythonSettings
    workers: WorkerSettings
    handlers: tuple[HandlerSettings, ...]
    signature: SignatureSettings
    log: LogSettings
    queues: tuple[str, ...]
    schemas: bool = False
    """Whether what is loaded is described with the JSON Schemas of its payloads."""
    tell_trust: bool = False
    """Whether the connection depends on whom the handlers' interpreter trusts."""


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


def rehearsal(
    python: PythonSettings, handlers: tuple[HandlerSettings, ...], workers: WorkerSettings, *, schemas: bool
) -> GenerationSpec:
    """What a template needs to know that imports the handlers and forks nobody."""
    return GenerationSpec(
        generation=0,
        runtime=Path("/"),
        nats=NatsSettings(),
        python=python,
        workers=workers,
        handlers=handlers,
        signature=SignatureSettings(),
        log=LogSettings(),
        queues=(),
        schemas=schemas,
    )


def to_json(value: object) -> bytes:
    """A frozen value, its parts included, as JSON."""
    return orjson.dumps(value, default=str)


def from_object(kind: type[_Value], found: object) -> _Value:
    """Makes a value of decoded JSON: nested dataclasses, paths, tuples of any length, optional parts.

    :raises TypeError: when `found` does not have the parts of `kind`.
    """
    return cast(_Value, _build(kind, found))


def _build(kind: Any, found: Any) -> object:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(kind) if arg is not types.NoneType)
        return None if found is None else _build(inner, found)
    if origin is tuple and isinstance(found, list):
        inner, *others = get_args(kind)
        if others == [...]:
            return tuple(_build(inner, item) for item in found)
        if len(found) == 1 + len(others):
            return tuple(_build(one, item) for one, item in zip((inner, *others), found, strict=True))
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(found, dict):
        hints = get_type_hints(kind)
        if unknown := found.keys() - hints:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        return kind(**{name: _part(hints[name], part, name) for name, part in found.items()})
    if kind is Path and isinstance(found, str):
        return Path(found)
    if kind is float and isinstance(found, int):
        return float(found)
    if origin is None and isinstance(kind, type) and isinstance(found, kind):
        return found
    wanted = kind.__name__ if isinstance(kind, type) and origin is None else kind
    raise TypeError(
        f"{type(found).__name__} where {wanted} is wanted"
    )  # not what it is: a plan holds secrets


def _part(kind: Any, found: Any, name: str) -> object:
    try:
        return _build(kind, found)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
