"""Makes tasks by hand, which the code for a router's requests then reads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ajhost.api import Task
from ajhost.protocol import timestamps
from ajhost.protocol.task_record import encode_task, new_id, read_task
from ajhost.roles.json_encoding import encode

DEFAULT_TIMEOUT = 60.0
"""Seconds of a task without a deadline: the default of `[workers] default_timeout`."""


def make_task(
    payload: object = None,
    *,
    type: str = "test",
    id: str | None = None,
    queue: str = "DEFAULT",
    tries: int = 1,
    max_tries: int = 10,
    deadline: float | datetime | None = None,
    created: datetime | None = None,
    dependencies: Sequence[str] = (),
    dependency_results: Mapping[str, Any] | None = None,
    state: Any = None,
) -> Task[Any]:
    """Returns a task as its handler would see it.

    :param payload: bytes as they are, `str` as UTF-8, None for none; anything else as JSON, models included.
    :param deadline: seconds from now, or the moment (aware); 60 s without one.
    :param dependency_results: id to the result's payload (JSON), or to `{"payload": ..., "completed": ...}`.
    :param state: the value of `task.state`, which a lifespan would have yielded.
    :raises ValueError: no router sends such a task.
    """
    now_ns = time.time_ns()
    more: dict[str, object] = {}
    if dependencies or dependency_results:
        completed = timestamps.render(now_ns)
        results = {
            key: value if isinstance(value, dict) and "payload" in value else {"payload": value, "completed": completed}
            for key, value in (dependency_results or {}).items()
        }
        more["dependencies"] = list(dependencies) or list(results)
        more["dependency_results"] = orjson.Fragment(encode(results))
    body = encode_task(
        id=id or new_id(), type=type, queue=queue, payload=payload_bytes(payload), tries=tries, max_tries=max_tries,
        created_ns=now_ns if created is None else timestamps.parse(created.astimezone(UTC).isoformat()),
        tried_ns=now_ns,
        more=more,
    )  # fmt: skip
    return Task(read_task(body), _monotonic(deadline), None, state)


def payload_bytes(payload: object) -> bytes:
    """Returns a payload's bytes: bytes as they are, `str` as UTF-8, None as nothing, anything else as JSON."""
    if payload is None:
        return b""
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    return encode(payload)


def _monotonic(deadline: float | datetime | None) -> float:
    if isinstance(deadline, datetime):
        return time.monotonic() + (deadline - datetime.now(UTC)).total_seconds()
    return time.monotonic() + (DEFAULT_TIMEOUT if deadline is None else deadline)
