"""Makes dataclasses of JSON that another process of the host has written: messages, `state.json`, a status. Names a
part that does not fit, or ignores one of a later version where the caller allows it.

`orjson.dumps` writes them. Annotations may be nested dataclasses, paths, tuples, mappings and optional parts.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

_Value = TypeVar("_Value")


def from_object(kind: type[_Value], found: object, *, lenient: bool = False) -> _Value:
    """Makes a value of decoded JSON.

    `lenient`: ignores parts that `kind` does not have, which a later version may have written.

    :raises TypeError: when `found` does not have the parts of `kind`. The text names them, and not their values: a spec
        has secrets.
    """
    return cast(_Value, _build(kind, found, lenient))


@functools.cache
def annotations_of(kind: type) -> Mapping[str, Any]:
    """Returns the fields of a dataclass with their types. Cached: `get_type_hints` is slow."""
    return get_type_hints(kind)


def _build(kind: Any, found: Any, lenient: bool) -> object:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in arguments if arg is not types.NoneType)
        return None if found is None else _build(inner, found, lenient)
    if origin in (tuple, Sequence) and isinstance(found, list | tuple):
        inner, *others = arguments
        if others in ([...], []):
            return tuple(_build(inner, item, lenient) for item in found)
        if len(found) == 1 + len(others):
            pairs = zip((inner, *others), found, strict=True)
            return tuple(_build(one, item, lenient) for one, item in pairs)
    if origin is Mapping and isinstance(found, dict):
        key, inner = arguments  # JSON has texts as keys
        return {key(name): _build(inner, item, lenient) for name, item in found.items()}
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(found, dict):
        known = annotations_of(kind)
        if not lenient and (unknown := found.keys() - known):
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        parts = {name: part for name, part in found.items() if name in known}
        return kind(**{name: _part(known[name], part, name, lenient) for name, part in parts.items()})
    if kind is Path and isinstance(found, str):
        return Path(found)
    if kind is float and isinstance(found, int):
        return float(found)
    if origin is None and isinstance(kind, type) and isinstance(found, kind):
        return found
    wanted = kind.__name__ if isinstance(kind, type) and origin is None else kind
    raise TypeError(f"{type(found).__name__} where {wanted} is wanted")


def _part(kind: Any, found: Any, name: str, lenient: bool) -> object:
    try:
        return _build(kind, found, lenient)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
