"""Replies as bytes, against a model of how Go reads them (`tests/router/test_headers.py`: Go itself)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reply_encoding import TEXT_LIMIT, encode_reply, sanitise
from ajhost.protocol.task_record import encode_task

MAX_PAYLOAD = 1 << 20
TASK = encode_task(id="a", type="email:new", queue="EMAIL", payload=b"x", created_ns=0, tried_ns=1)


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
    st.integers(900, 1200).flatmap(lambda size: st.sampled_from("aé€\U0001f600\ud800\n").map(lambda c: c * size)),
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
    assert len(safe.encode()) <= TEXT_LIMIT
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
