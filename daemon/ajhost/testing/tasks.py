"""Tasks by hand, read by the code that reads a router's."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ajhost.api import Task
from ajhost.protocol import times
from ajhost.protocol.task_record import TaskRecord, new_id, read_task
from ajhost.roles.json_encoding import encode

DEFAULT_TIMEOUT = 60.0
"""Seconds of a task without a deadline: what `[workers] default_timeout` is by default."""


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
    """A task as its handler would see it.

    :param payload: bytes as they are, `str` as UTF-8, None for none; anything else as JSON, models included.
    :param deadline: seconds from now, or the moment (aware); 60 s without one.
    :param dependency_results: id to the result's payload (JSON), or to `{"payload": ..., "completed": ...}`.
    :param state: what `task.state` is: what a lifespan would have yielded.
    :raises ValueError: no router sends such a task.
    """
    record = make_record(
        payload, type=type, id=id, queue=queue, tries=tries, max_tries=max_tries, created=created,
        dependencies=dependencies, dependency_results=dependency_results,
    )  # fmt: skip
    record.without_deadline = deadline is None
    return Task(record, _monotonic(deadline), None, state)


def make_record(
    payload: object,
    *,
    type: str,
    id: str | None = None,
    queue: str = "DEFAULT",
    tries: int = 1,
    max_tries: int = 10,
    created: datetime | None = None,
    dependencies: Sequence[str] = (),
    dependency_results: Mapping[str, Any] | None = None,
) -> TaskRecord:
    """As `make_task`, what a request would hold."""
    now = times.render(time.time_ns())
    raw = payload_bytes(payload)
    body: dict[str, object] = {
        "id": id or new_id(),
        "type": type,
        "queue": queue,
        "payload": base64.b64encode(raw).decode() if raw else None,
        "max_tries": max_tries,
        "state": "active",
        "created": now if created is None else created.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "tried": now,
        "tries": tries,
    }
    if dependencies or dependency_results:
        results = {
            key: value
            if isinstance(value, dict) and "payload" in value
            else {"payload": value, "completed": now}
            for key, value in (dependency_results or {}).items()
        }
        body["dependencies"] = list(dependencies) or list(results)
        body["dependency_results"] = orjson.Fragment(encode(results))
    return read_task(orjson.dumps(body))


def payload_bytes(payload: object) -> bytes:
    """What a producer would attach: bytes as they are, `str` as UTF-8, None as nothing, anything else as JSON."""
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
