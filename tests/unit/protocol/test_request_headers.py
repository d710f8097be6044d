"""Requests: what their headers say, and any other bytes."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.protocol.request_headers import encode_request, known_deadline, read_deadline
from ajhost.protocol.task_record import TaskRecord, encode_task, read_task

TASK = encode_task(id="a", type="email:new", queue="EMAIL", payload=b"x", created_ns=0, tried_ns=1)
CONTENT_TYPE = b"AJ-Content-Type: application/x-asyncjobs-task+json\r\n"
HEADER = b"NATS/1.0\r\n" + CONTENT_TYPE + b"AJ-Handler-Deadline: 2009-11-10T23:00:00Z\r\n\r\n"
DEADLINE = 1_257_894_000_000_000_000


def read(header: bytes, body: bytes = TASK) -> tuple[TaskRecord, int | None]:
    deadline = read_deadline(header)
    assert known_deadline(header) == deadline
    return read_task(body), deadline


def refused(header: bytes, body: bytes = TASK) -> str:
    try:
        read(header, body)
    except ValueError as error:
        return str(error)
    pytest.fail("it is a request")


def block(*lines: bytes) -> bytes:
    return b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def test_a_request_of_the_router_is_read() -> None:
    request = read(HEADER)
    task, deadline_ns = request
    assert deadline_ns == DEADLINE
    assert (task.id, task.payload) == ("a", b"x")


def test_what_call_sends_is_what_the_router_sends() -> None:
    # The router cuts the fraction of its deadline off (Go's time.RFC3339).
    subject, headers, body = encode_request("", TASK, DEADLINE + 999_999_999)
    assert subject == "CHORIA_AJ.H.T.catchall"
    assert block(*(f"{name}: {value}".encode() for name, value in headers.items())) == HEADER
    assert body == TASK


@pytest.mark.parametrize(
    ("header", "deadline"),
    [
        pytest.param(b"", None, id="no headers at all"),
        pytest.param(block(), None, id="an empty block"),
        pytest.param(block(b"X: y"), None, id="foreign headers"),
        pytest.param(block(CONTENT_TYPE.strip()), None, id="no deadline"),
        pytest.param(block(b"AJ-Handler-Deadline: 1970-01-01T00:00:01Z"), 10**9, id="no content type"),
        pytest.param(block(b"AJ-Handler-Deadline:1970-01-01T00:00:01Z"), 10**9, id="no blank"),
        pytest.param(block(b"AJ-Handler-Deadline: \t 1970-01-01T00:00:01Z "), 10**9, id="many blanks"),
        pytest.param(block(b"AJ-Handler-Deadline: 1970-01-01T00:00:01.5+00:00"), 1_500_000_000, id="a fraction"),
        pytest.param(
            block(b"AJ-Handler-Deadline: 1970-01-01T00:00:01Z", b"AJ-Handler-Deadline: 1970-01-01T00:00:02Z"),
            10**9,
            id="the first of two counts",
        ),
        pytest.param(block(b"aj-handler-deadline: 1970-01-01T00:00:01Z"), None, id="names are case-sensitive"),
        pytest.param(block(b"X-AJ-Handler-Deadline: 1970-01-01T00:00:01Z"), None, id="the end of another name"),
        pytest.param(block(b"AJ-Content-Type: Application/X-AsyncJobs-Task+JSON; v=1"), None, id="a parameter"),
        pytest.param(block(b"X: " + b"y" * 5000, b"AJ-Handler-Deadline: 1970-01-01T00:00:01Z"), 10**9, id="long"),
        pytest.param(b"NATS/1.0\r\nAJ-Handler-Deadline: 1970-01-01T00:00:01Z", 10**9, id="cut off at its end"),
    ],
)
def test_the_deadline_of_a_header_block(header: bytes, deadline: int | None) -> None:
    assert read(header)[1] == deadline


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"HTTP/1.1\r\n\r\n", "do not begin with NATS/1.0"),
        (b"NATS/1.00\r\n\r\n", "do not begin with NATS/1.0"),
        (b"\xff", "do not begin with NATS/1.0"),
        (block(b"AJ-Handler-Deadline: soon"), "AJ-Handler-Deadline: 'soon'"),
        (block(b"AJ-Handler-Deadline:"), "AJ-Handler-Deadline: ''"),
        (block(b"AJ-Handler-Deadline: \xff\xfe"), "AJ-Handler-Deadline: "),
        (block(b"AJ-Content-Type: text/plain"), "AJ-Content-Type must be application/x-asyncjobs-task+json"),
        (block(b"AJ-Content-Type:"), "AJ-Content-Type must be"),
    ],
)
def test_a_header_block_that_cannot_be_used_says_why(header: bytes, reason: str) -> None:
    assert reason in refused(header)


HEADERS = st.one_of(
    st.just(b""),
    st.just(HEADER),
    st.binary(max_size=200),
    st.lists(st.binary(max_size=60), max_size=4).map(lambda lines: block(*lines)),
    st.binary(max_size=60).map(lambda value: block(b"AJ-Handler-Deadline: " + value)),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
FIELDS = ["id", "type", "queue", "payload", "tries", "max_tries", "created", "deadline", "tried", "signature"]
FIELDS += ["dependencies", "dependency_results", "unknown"]
CHANGED_TASKS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4).map(
    lambda changes: json.dumps(json.loads(TASK) | changes).encode()
)
BODIES = st.one_of(st.binary(max_size=200), JSON.map(json.dumps).map(str.encode), CHANGED_TASKS)


@given(HEADERS, BODIES)
@settings(max_examples=400)
def test_any_bytes_in_are_a_request_or_a_value_error(header: bytes, body: bytes) -> None:
    with contextlib.suppress(ValueError):
        task, _ = read(header, body)
        assert task.id
        assert task.size == len(body)


@given(st.integers(0, len(TASK) - 1), st.integers(0, 255))
@settings(max_examples=300)
def test_a_task_with_any_one_byte_changed_is_a_request_or_a_value_error(at: int, byte: int) -> None:
    with contextlib.suppress(ValueError):
        task, _ = read(HEADER, TASK[:at] + bytes((byte,)) + TASK[at + 1 :])
        assert task.id
