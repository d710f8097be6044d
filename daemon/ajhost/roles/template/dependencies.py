"""What a worker needs of the host's own libraries, and where they lie."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_DEPENDENCIES = (
    *("nats", "nkeys", "nacl", "orjson", "setproctitle", "systemd", "uvloop"),
    # of typed payloads and of results that orjson does not know; imported when there is one
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
)
"""What a worker needs besides the standard library."""


def directories() -> list[str]:
    """The directories in which this process finds what a worker needs."""
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
