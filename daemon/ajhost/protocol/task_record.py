"""Reads a task as a router sends it: JSON to a checked record. Decides which fields a task must have, and what is wrong
with one (`bad request:`): an id or a type longer than 255, a payload that is not base64, a time that is none.

The fields and their meaning are those of `Task` in asyncjobs v0.3.0, task.go. Fields that the host does not use are
ignored, whatever their value.
"""

from __future__ import annotations

import base64
import re
import secrets
import string
from binascii import a2b_base64
from collections.abc import Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from orjson import JSONDecodeError, dumps, loads

from ajhost.protocol import exact_json, timestamps

_TYPE = re.compile(r"[a-zA-Z0-9_:-]+\Z")
_USUAL = ("id", "type", "payload", "tries", "max_tries", "tried", "created", "queue", "state")
"""The fields of most tasks. The host does not read `state`; it is here so that the count of fields shows others."""
_usual = itemgetter(*_USUAL)
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1

# Types that were found valid: a host sees few, each many times. Bounded in number and in length.
_valid_types: set[str] = set()
_TYPES_KEPT = 1024
_LONGEST_KEPT = 128
LONGEST_TYPE = 255
"""Bytes of the longest type. Types are keys of caches, so their length is bounded before they are used."""
LONGEST_ID = 255
"""Characters of the longest id. Each log record of a task has its id, and a handler may log any number of records. A
router's ids have 27 (asyncjobs v0.3.0, task.go).
"""
_ID_ALPHABET = string.digits + string.ascii_letters


class TaskRecord:
    """One task: identity, payload and what the router said about this attempt.

    A plain class with slots, because a frozen dataclass of this size costs more than the rest of the parse. Records do
    not change once `read_task` has made them, except `without_deadline`: the reader of the request's header sets it.
    Times are integer nanoseconds since 1970.

    `payload` is decoded (`b""` for null), `tries` counts this attempt, `max_tries` is 0 where the task does not
    say, `dependency_results` is as it came (id to `{"payload": any, "completed": text}`), `signature` is hex or `""`,
    `size` is the length of the JSON in bytes, which the router stores again together with the result.
    """

    __slots__ = (
        "_created", "_deadline", "dependencies", "dependency_results", "id", "max_tries", "payload", "queue",
        "signature", "size", "tried_ns", "tries", "type", "without_deadline",
    )  # fmt: skip

    id: str
    type: str
    queue: str
    payload: bytes
    max_tries: int
    tries: int
    tried_ns: int | None
    dependencies: tuple[str, ...]
    dependency_results: dict[str, Any]
    signature: str
    size: int
    without_deadline: bool
    """Whether its request's header has no deadline, so that the host's own default is its limit."""
    _created: str | None
    _deadline: str | None

    @property
    def created_ns(self) -> int:
        """When the task was made; Go's zero time where the task does not say. Raises ValueError if malformed.

        Converted at each access: only signatures and a few handlers need it.
        """
        if self._created is None:
            return timestamps.ZERO_TIME
        return _moment("created", self._created)

    @property
    def deadline_ns(self) -> int | None:
        """The moment past which the router starts no attempt, None without one. Raises ValueError if malformed.

        Not this attempt's deadline: that one is in the request's header.
        """
        return None if self._deadline is None else _moment("deadline", self._deadline)

    def __repr__(self) -> str:
        return f"<TaskRecord {self.id!r} of type {self.type!r}, try {self.tries}>"


def read_task(body: bytes) -> TaskRecord:
    """Reads the task in the JSON `body`. Raises ValueError whose text names the field and shows what was found."""
    try:
        fields = loads(body)
    except JSONDecodeError:
        fields = _read_again(body)
    if type(fields) is not dict:
        raise ValueError(f"the task is not a JSON object but {shown(fields)}")
    try:
        id_, type_, payload, tries, max_tries, tried, created, queue, _ = _usual(fields)
        has_more = len(fields) > len(_USUAL)
    except KeyError:  # Go reads null as a missing field
        id_, type_, payload, tries, max_tries, tried, created, queue, _ = map(fields.get, _USUAL)
        has_more = True
    task = TaskRecord()
    task.size = len(body)
    task.without_deadline = False

    if type(id_) is not str or not id_:
        raise _wrong("id", "a text that is not empty", id_)
    if len(id_) > LONGEST_ID:
        raise ValueError(f"id must have at most {LONGEST_ID} characters, found {len(id_)}")
    task.id = id_
    if type(type_) is not str or type_ not in _valid_types:
        _check_type(type_)
    task.type = type_
    if payload is None:
        task.payload = b""
    else:
        if type(payload) is not str:
            raise _wrong("payload", "base64 or null", payload)
        try:
            task.payload = a2b_base64(payload, strict_mode=True)
        except ValueError as error:
            raise ValueError(f"payload is not base64: {error}; found {shown(payload)}") from None
    if type(tries) is not int or not 0 <= tries <= _MOST:
        tries = _unless_null(0, "tries", "a whole number, 0 or more", tries)
    task.tries = tries
    if type(max_tries) is not int or not _LEAST <= max_tries <= _MOST:
        max_tries = _unless_null(0, "max_tries", "a whole number", max_tries)
    task.max_tries = max_tries
    if type(tried) is str:
        try:
            task.tried_ns = timestamps.parse(tried)
        except ValueError as error:
            raise ValueError(f"tried: {error}") from None
    else:
        task.tried_ns = None if tried is None else _moment("tried", tried)
    if type(created) is not str and created is not None:
        raise _wrong("created", "a time", created)
    task._created = created
    if type(queue) is not str:
        queue = _unless_null("", "queue", "a text", queue)
    task.queue = queue
    if not has_more:
        task._deadline, task.signature, task.dependencies, task.dependency_results = None, "", (), {}
        return task
    get = fields.get
    value: Any = get("deadline")
    task._deadline = value
    if type(value) is not str and value is not None:
        raise _wrong("deadline", "a time", value)
    value = get("signature", "")
    if type(value) is not str:
        value = _unless_null("", "signature", "a text", value)
    task.signature = value
    value = get("dependencies")
    task.dependencies = () if value is None else _texts("dependencies", value)
    value = get("dependency_results")
    if value is None:
        value = {}
    elif type(value) is not dict:
        raise _wrong("dependency_results", "an object", value)
    elif value and exact_json.has_long_integers(body):
        value = exact_json.exact(body)["dependency_results"]
    task.dependency_results = value
    return task


def _read_again(body: bytes) -> Any:
    """Reads a text that orjson refused: with an integer of more than 308 digits in a result it is JSON all the same."""
    try:
        return exact_json.loads(body)
    except ValueError as error:
        raise ValueError(f"the task is not JSON: {error}") from None


def encode_task(
    *,
    id: str,
    type: str,
    queue: str,
    payload: bytes,
    created_ns: int,
    tried_ns: int,
    tries: int = 1,
    max_tries: int = 10,
    signature: str = "",
    more: Mapping[str, object] = MappingProxyType({}),
) -> bytes:
    """Returns the JSON of an active task, with the router's fields in the router's order. Times are nanoseconds.

    `more`: the fields that few tasks have.
    """
    signed = {"signature": signature} if signature else {}
    return dumps(
        {
            "id": id,
            "type": type,
            "queue": queue,
            "payload": base64.b64encode(payload).decode() if payload else None,
            "max_tries": max_tries,
            "state": "active",
            "created": timestamps.render(created_ns),
            "tried": timestamps.render(tried_ns),
            "tries": tries,
            **signed,
            **more,
        }
    )


def new_id() -> str:
    """Makes an id for a task without a producer, in the form of a KSUID of these years: 27 characters, 3 first."""
    return "3" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(26))


def shown(value: object) -> str:
    """Describes a foreign JSON value in one short line, for an error text."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value[:48] if isinstance(value, str) else value)
    return text if len(text) <= 64 else text[:61] + "..."


def _wrong(field: str, wanted: str, found: object) -> ValueError:
    return ValueError(f"{field} must be {wanted}, found {shown(found)}")


def _unless_null(zero: int | str, field: str, wanted: str, found: object) -> int | str:
    """Returns `zero` for null, as Go does; raises for any other value, which is of the wrong type or range."""
    if found is None:
        return zero
    raise _wrong(field, wanted, found)


def _check_type(value: object) -> None:
    if not isinstance(value, str) or not _TYPE.match(value):
        raise _wrong("type", "letters, digits, '_', ':' and '-'", value)
    if len(value) > LONGEST_TYPE:
        raise ValueError(f"type must have at most {LONGEST_TYPE} bytes, found {len(value)}")
    if len(value) <= _LONGEST_KEPT:
        if len(_valid_types) >= _TYPES_KEPT:
            _valid_types.clear()
        _valid_types.add(value)


def _moment(field: str, value: object) -> int:
    if not isinstance(value, str):
        raise _wrong(field, "a time", value)
    try:
        return timestamps.parse(value)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _texts(field: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(field, "a list of texts", value)
    return tuple(value)
