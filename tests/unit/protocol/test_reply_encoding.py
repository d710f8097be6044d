"""Requests and replies as bytes, against a model of how Go reads them (`tests/router/test_headers.py`: Go itself)."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.protocol import reply_encoding
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reply_encoding import encode_reply, known_deadline, read_deadline, sanitise
from ajhost.protocol.task_record import TaskRecord, encode_task, read_task

MAX_PAYLOAD = 1 << 20
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


# --- requests


def test_a_request_of_the_router_is_read() -> None:
    request = read(HEADER)
    task, deadline_ns = request
    assert deadline_ns == DEADLINE
    assert (task.id, task.payload) == ("a", b"x")


def test_what_call_sends_is_what_the_router_sends() -> None:
    # The router cuts the fraction of its deadline off (Go's time.RFC3339).
    subject, headers, body = reply_encoding.encode_request("", TASK, DEADLINE + 999_999_999)
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
        pytest.param(
            block(b"AJ-Handler-Deadline: 1970-01-01T00:00:01.5+00:00"), 1_500_000_000, id="a fraction"
        ),
        pytest.param(
            block(b"AJ-Handler-Deadline: 1970-01-01T00:00:01Z", b"AJ-Handler-Deadline: 1970-01-01T00:00:02Z"),
            10**9,
            id="the first of two counts",
        ),
        pytest.param(
            block(b"aj-handler-deadline: 1970-01-01T00:00:01Z"), None, id="names are case-sensitive"
        ),
        pytest.param(
            block(b"X-AJ-Handler-Deadline: 1970-01-01T00:00:01Z"), None, id="the end of another name"
        ),
        pytest.param(
            block(b"AJ-Content-Type: Application/X-AsyncJobs-Task+JSON; v=1"), None, id="a parameter"
        ),
        pytest.param(
            block(b"X: " + b"y" * 5000, b"AJ-Handler-Deadline: 1970-01-01T00:00:01Z"), 10**9, id="long"
        ),
        pytest.param(
            b"NATS/1.0\r\nAJ-Handler-Deadline: 1970-01-01T00:00:01Z", 10**9, id="cut off at its end"
        ),
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
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
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


# --- replies


def go_header(data: bytes) -> dict[bytes, bytes] | None:
    """What `DecodeHeadersMsg` and `Header.Get` of nats.go make of a block: first values, None for an error."""
    lines = iter(line.removesuffix(b"\r") for line in data.split(b"\n"))
    if not next(lines).startswith(b"NATS/1.0"):
        return None
    values: dict[bytes, bytes] = {}
    for line in lines:
        if not line:
            return values
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        if name:
            values.setdefault(name, value.lstrip(b" \t"))
    return None


def published(command: bytes) -> tuple[bytes, bytes, bytes]:
    """Subject, header block and body of exactly one PUB or HPUB command, as a server reads it."""
    line, _, rest = command.partition(b"\r\n")
    words = line.split(b" ")
    if words[0] == b"PUB":
        assert len(words) == 3
        header_size, total = 0, int(words[2])
    else:
        assert words[0] == b"HPUB"
        assert len(words) == 4
        header_size, total = int(words[2]), int(words[3])
    assert len(rest) == total + 2
    assert rest.endswith(b"\r\n")
    return words[1], rest[:header_size], rest[header_size:total]


def router_reads(command: bytes) -> Outcome:
    """What the router makes of a reply (asyncjobs v0.3.0, request_reply_handler.go): terminate wins."""
    _, header, body = published(command)
    # With headers that it cannot read, nats.go delivers the message without any.
    values = (go_header(header) if header else None) or {}
    if text := values.get(b"AJ-Terminate"):
        return Terminated(text.decode())
    if text := values.get(b"AJ-Error"):
        return Failed(text.decode())
    return Completed(body)


NASTY = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(categories=("Cc", "Cs", "Zs", "Zl", "Zp")), max_size=20),
    st.text(st.sampled_from("\r\n: \tAJ-Error:é\U0001f600"), max_size=40),
    st.integers(900, 1200).flatmap(
        lambda size: st.sampled_from("aé€\U0001f600\ud800\n").map(lambda c: c * size)
    ),
    st.just("AJ-Terminate: x\r\n\r\n"),
)
OUTCOMES = st.one_of(
    st.binary(max_size=200).map(Completed),
    NASTY.map(Failed),
    NASTY.map(Terminated),
)


@given(OUTCOMES)
@settings(max_examples=400)
def test_any_outcome_out_is_a_reply_that_the_router_reads_as_that_outcome(outcome: Outcome) -> None:
    command = encode_reply(b"_INBOX.x.1", outcome, MAX_PAYLOAD, len(TASK))
    assert published(command)[0] == b"_INBOX.x.1"
    match outcome, router_reads(command):
        case Completed(body), Completed(seen):
            assert seen == body
        case (Failed(text), Failed(seen)) | (Terminated(text), Terminated(seen)):
            assert seen == sanitise(text)
        case other:
            pytest.fail(f"read as another outcome: {other}")


@given(NASTY)
@settings(max_examples=300)
def test_a_safe_text_is_one_line_of_at_most_a_kibibyte_that_stays_as_it_is(text: str) -> None:
    safe = sanitise(text)
    assert safe == safe.strip() != ""
    assert len(safe.encode()) <= reply_encoding.TEXT_LIMIT
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in safe)
    assert len(safe.splitlines()) == 1
    assert sanitise(safe) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("handler error: x", "handler error: x"),
        ("", "no reason given"),
        (" \r\n\t ", "no reason given"),
        ("a\r\nAJ-Terminate: b", "a AJ-Terminate: b"),
        ("a\x00b\x7fc\x85d\u2028e", "a b c d e"),
        ("paid \u202eoot\u2069 10", "paid  oot  10"),
        ("a\u200bd\u2060m\ufeffin\U000e0041", "a d m in"),
        ("\U0001f469\u200d\U0001f680", "\U0001f469\u200d\U0001f680"),
        ("\ud800x", "\ufffdx"),
        ("x" * 2000, "x" * 1024),
        ("é" * 600, "é" * 512),
        ("x" + "é" * 600, "x" + "é" * 511),
        ("x" * 1023 + "  y", "x" * 1023),
    ],
)
def test_a_text_is_made_safe(text: str, safe: str) -> None:
    assert sanitise(text) == safe


# --- sizes


def test_a_result_that_just_fits_into_the_stored_task_is_sent() -> None:
    body = b"x" * 3000
    limit = 400 + 4000 + 256
    assert router_reads(encode_reply(b"r", Completed(body), limit, 400)) == Completed(body)
    refused = router_reads(encode_reply(b"r", Completed(body), limit - 1, 400))
    assert isinstance(refused, Terminated)
    assert "3000 bytes" in refused.text
    assert str(limit - 1) in refused.text


def test_a_result_over_the_server_s_limit_terminates_with_both_sizes() -> None:
    outcome = router_reads(encode_reply(b"r", Completed(b"x" * 5000), 4096))
    assert outcome == Terminated("result too large: 5000 bytes, the server takes 4096")


@given(st.sampled_from('x"<é\U0001f600'), st.integers(0, 8000), st.sampled_from((Failed, Terminated)))
@settings(max_examples=300)
def test_an_error_text_never_makes_the_task_too_large_to_store(
    char: str, room: int, kind: type[Failed] | type[Terminated]
) -> None:
    task_size = MAX_PAYLOAD - 700 - room
    seen = router_reads(encode_reply(b"r", kind(char * 2000), MAX_PAYLOAD, task_size))
    assert isinstance(seen, kind)
    # Go escapes `<` to six bytes; json.dumps does so with é.
    last_err = json.dumps(seen.text).replace("<", "\\u003c")
    assert task_size + len(last_err) + len(',"last_err":": terminate task"') <= MAX_PAYLOAD
