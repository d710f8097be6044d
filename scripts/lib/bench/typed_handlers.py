"""Handlers of the benchmarks with typed payloads: apart from the others, whose workers are to have no pydantic."""

from __future__ import annotations

import orjson
from pydantic import BaseModel

from ajhost import Task


class Arguments(BaseModel):
    """What the load generator sends."""

    n: int | None = None


async def noop(arguments: Arguments, task: Task) -> bytes:
    """As `handlers.noop`, its arguments validated by pydantic."""
    return orjson.dumps({"id": task.id, "n": arguments.n})
