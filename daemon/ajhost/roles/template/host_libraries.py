"""The libraries that a worker needs, and the directories from which the handlers' interpreter imports them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_DEPENDENCIES = (
    *("nats", "nkeys", "nacl", "orjson", "setproctitle", "systemd", "uvloop"),
    # for typed payloads, and for results that orjson cannot encode; imported only then
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
)
"""Top-level modules besides the standard library."""


def directories() -> list[str]:
    """Returns the directories from which this process imports these libraries, each once."""
    places: list[str] = []
    for name in _DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        module = Path(spec.origin)
        place = str(module.parent.parent if spec.submodule_search_locations is not None else module.parent)
        if place not in places:
            places.append(place)
    return places
