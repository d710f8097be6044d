"""Tasks from JSON, and what handler authors see of them."""

import base64
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost import Task, TerminateTask
from ajhost.protocol import timestamps
from ajhost.protocol.task_record import encode_task, read_task
from ajhost.protocol.unwrap import unwrap

FULL = {
    "id": "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d",
    "type": "email:new",
    "queue": "EMAIL",
    "dependencies": ["a", "b"],
    "dependency_results": {"a": {"payload": "eA==", "completed": "2026-11-24T11:55:00Z"}},
    "load_dependencies": True,
    "payload": "eyJ0byI6IngifQ==",
    "deadline": "2026-11-24T13:00:00.5+01:00",
    "max_tries": 10,
    "state": "active",
    "created": "2026-11-24T11:55:56.123456789Z",
    "tried": "2026-11-24T11:56:00.000000001Z",
    "tries": 2,
    "last_err": "x",
    "signature": "00ff",
}
# The sample of the asyncjobs documentation has no max_tries.
SPARSE = {"id": "a", "type": "t"}


def encoded(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_every_field_of_a_task_is_read() -> None:
    body = encoded(**FULL)
    record = read_task(body)
    assert (record.id, record.type, record.queue) == (FULL["id"], "email:new", "EMAIL")
    assert record.payload == b'{"to":"x"}'
    assert (record.tries, record.max_tries) == (2, 10)
    assert record.dependencies == ("a", "b")
    assert record.dependency_results == FULL["dependency_results"]
    assert record.signature == "00ff"
    assert record.created_ns == timestamps.parse("2026-11-24T11:55:56.123456789Z")
    assert record.deadline_ns == timestamps.parse("2026-11-24T12:00:00.5Z")
    assert record.tried_ns == timestamps.parse("2026-11-24T11:56:00.000000001Z")
    assert record.size == len(body)


@pytest.mark.parametrize(
    "fields",
    [
        SPARSE,
        SPARSE | {"payload": None, "tried": None, "deadline": None, "created": None},
        SPARSE | {"dependencies": None, "dependency_results": None},
        SPARSE | {"queue": None, "tries": None, "max_tries": None, "signature": None},
    ],
    ids=str,
)
def test_what_a_task_does_not_say_has_go_s_zero_value(fields: dict[str, object]) -> None:
    record = read_task(encoded(**fields))
    assert (record.payload, record.queue, record.signature) == (b"", "", "")
    assert (record.tries, record.max_tries) == (0, 0)
    assert (record.dependencies, record.dependency_results) == ((), {})
    assert (record.created_ns, record.deadline_ns, record.tried_ns) == (timestamps.ZERO_TIME, None, None)


def test_fields_that_nobody_knows_are_ignored() -> None:
    record = read_task(encoded(**SPARSE, colour="red", state=7, last_err=[], result=3, load_dependencies="no"))
    assert record.id == "a"


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("id", None, "found nothing"),
        ("id", "", "found ''"),
        ("id", 7, "found 7"),
        ("id", "x" * 256, "id must have at most 255 characters, found 256"),
        ("type", None, "found nothing"),
        ("type", "", "found ''"),
        ("type", "a b", "found 'a b'"),
        ("type", "a\n", r"found 'a\n'"),
        ("type", "émail", "found 'émail'"),
        ("type", ["a"], "found a list"),
        ("queue", 1, "found 1"),
        ("payload", 1, "found 1"),
        ("payload", {}, "found an object"),
        ("payload", "eA", "found 'eA'"),
        ("payload", "eA==eA==", "found 'eA==eA=='"),
        ("payload", "e-_=", "found 'e-_='"),
        ("payload", "é===", "found 'é==='"),
        ("payload", "=", "found '='"),
        ("tries", "1", "found '1'"),
        ("tries", -1, "found -1"),
        ("tries", True, "found True"),
        ("tries", 1.5, "found 1.5"),
        ("tries", 1 << 63, "found 9223372036854775808"),
        ("max_tries", "1", "found '1'"),
        ("max_tries", False, "found False"),
        ("max_tries", 1 << 63, "found 9223372036854775808"),
        ("tried", 1, "found 1"),
        ("tried", {}, "found an object"),
        ("tried", "now", "'now' is not"),
        ("created", 1, "found 1"),
        ("deadline", [], "found a list"),
        ("dependencies", "a", "found 'a'"),
        ("dependencies", ["a", 1], "found a list"),
        ("dependency_results", [], "found a list"),
        ("signature", 1, "found 1"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_and_shown(field: str, value: object, found: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}[ :]") as caught:
        read_task(encoded(**(SPARSE | {field: value})))
    assert found in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"a"', b"1", b"\xff", b"{}{}", b"[" * 5000])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="^the task is not"):
        read_task(body)


def test_a_huge_wrong_value_is_shown_in_part() -> None:
    with pytest.raises(ValueError, match="^type must be") as caught:
        read_task(encoded(id="a", type="?" * 100_000))
    assert len(str(caught.value)) < 200


def test_a_malformed_time_that_only_some_read_is_found_when_read() -> None:
    record = read_task(encoded(**SPARSE, created="yesterday", deadline="tomorrow"))
    with pytest.raises(ValueError, match="^created: 'yesterday' is not"):
        _ = record.created_ns
    with pytest.raises(ValueError, match="^deadline: 'tomorrow' is not"):
        _ = record.deadline_ns


@given(
    st.binary(max_size=64),
    st.integers(1, 99),
    st.integers(0, 1 << 62),
    st.from_regex(r"[a-zA-Z0-9_:-]+", fullmatch=True),
)
@settings(max_examples=300)
def test_a_task_that_is_written_is_read_as_it_was(payload: bytes, tries: int, moment: int, task_type: str) -> None:
    record = read_task(
        encode_task(
            id="a",
            type=task_type,
            queue="Q",
            payload=payload,
            created_ns=moment,
            tried_ns=moment + 1,
            tries=tries,
        )
    )
    assert (record.type, record.payload, record.tries) == (task_type, payload, tries)
    assert (record.created_ns, record.tried_ns) == (moment, moment + 1)


@given(st.binary(max_size=64))
@settings(max_examples=300)
def test_a_payload_that_was_encoded_twice_is_unwrapped(payload: bytes) -> None:
    assert unwrap(json.dumps(base64.b64encode(payload).decode()).encode()) == payload


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"{}", "not a JSON text but an object"),
        (b"null", "not a JSON text but nothing"),
        (b'"?"', "not base64"),
        ('"é"'.encode(), "not base64"),
    ],
)
def test_what_cannot_be_unwrapped_says_why(payload: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match="^cannot unwrap the payload: ") as caught:
        unwrap(payload)
    assert reason in str(caught.value)


def test_a_handler_sees_the_task() -> None:
    task = Task(read_task(encoded(**FULL)), time.monotonic() + 60)
    assert (task.id, task.type, task.queue) == (FULL["id"], "email:new", "EMAIL")
    assert (task.payload, task.json()) == (b'{"to":"x"}', {"to": "x"})
    assert (task.tries, task.max_tries) == (2, 10)
    assert task.created == datetime(2026, 11, 24, 11, 55, 56, 123456, tzinfo=UTC)
    assert (task.dependencies, task.dependency_results) == (("a", "b"), FULL["dependency_results"])


def test_a_handler_sees_the_unwrapped_payload() -> None:
    task = Task(read_task(encoded(**FULL)), time.monotonic(), b"[1]")
    assert (task.payload, task.json()) == (b"[1]", [1])


def test_the_deadline_is_the_moment_that_remaining_counts_to() -> None:
    task = Task(read_task(encoded(**FULL)), time.monotonic() + 60)
    assert 59 < task.remaining() <= 60
    assert abs(task.deadline - datetime.now(UTC) - timedelta(seconds=task.remaining())) < timedelta(seconds=1)
    assert task.deadline == task.deadline


def test_time_that_is_over_is_never_negative() -> None:
    assert Task(read_task(encoded(**FULL)), time.monotonic() - 5).remaining() == 0.0


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff"])
def test_a_payload_that_is_not_json_says_so(payload: bytes) -> None:
    task = Task(read_task(encoded(**SPARSE)), time.monotonic(), payload)
    with pytest.raises(ValueError, match="JSON"):
        task.json()


def test_a_task_cannot_be_changed_by_its_handler() -> None:
    task = Task(read_task(encoded(**FULL)), time.monotonic())
    with pytest.raises(AttributeError):
        task.payload = b""  # type: ignore[misc]


def test_termination_is_an_exception_with_a_text() -> None:
    assert str(TerminateTask("no recipient")) == "no recipient"
