"""Whether a request can be served and until when, and what is told to the owner of a task whose worker died."""

from __future__ import annotations

import logging
import re
import time
import tracemalloc
from collections.abc import Sequence
from typing import Protocol

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from ajhost.core.clock_offset import ClockOffset
from ajhost.core.timings import ANSWER_MARGIN
from ajhost.protocol.outcome import Failed
from ajhost.protocol.signature import message
from ajhost.protocol.subjects import reply_subjects
from ajhost.protocol.task_record import encode_task, read_task
from ajhost.protocol.timestamps import render_seconds
from ajhost.roles.request_check import CheckedRequest, RequestChecker
from ajhost.settings.sections import HandlerSettings, SignatureSettings
from tests.support.memory_ledger import ledger_in_memory

SUBJECT = b"CHORIA_AJ.H.T."
CATCH_ALL = b"CHORIA_AJ.H.T.catchall"
UNSIGNED = SignatureSettings()
DEFAULT = 60.0
KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
"""A public key of nobody here (RFC 8032, 7.1)."""


def handlers(*routes: str, timeout: float | None = None) -> list[HandlerSettings]:
    return [HandlerSettings(route, "m:f", timeout=timeout) for route in routes]


def judge(*routes: str, timeout: float | None = None, signature: SignatureSettings = UNSIGNED) -> RequestChecker:
    return RequestChecker(handlers(*routes, timeout=timeout), DEFAULT, signature)


class Moments(Protocol):
    """Both clocks: `time`, or a `Clock`."""

    def monotonic(self) -> float: ...

    def time_ns(self) -> int: ...


def check(
    one: RequestChecker, subject: bytes, header: bytes, body: bytes, clock: Moments = time
) -> CheckedRequest | Failed:
    """What becomes of a request that is read now."""
    return one.check(subject, header, body, clock.monotonic(), clock.time_ns())


def task(kind: str, tried_ns: int | None = None) -> bytes:
    if tried_ns is None:
        return b'{"id":"i","type":"%b","queue":"Q","payload":"cA==","tries":1}' % kind.encode()
    return encode_task(id="i", type=kind, queue="Q", payload=b"p", created_ns=0, tried_ns=tried_ns)


def header(seconds: float) -> bytes:
    return b"NATS/1.0\r\nAJ-Handler-Deadline: %b\r\n\r\n" % render_seconds(time.time_ns() + int(seconds * 1e9)).encode()


@pytest.mark.parametrize(
    ("routes", "subject", "kind", "handler"),
    [
        (("a", "b"), SUBJECT + b"b", "b", 1),
        (("email:", "email:new", ""), SUBJECT + b"email:", "email:new", 1),
        (("email:", "email:new", ""), CATCH_ALL, "other", 2),
        (("",), b"CHORIA.AJ.H.T.catchall", "other", 0),
    ],
)
def test_a_request_goes_to_the_handler_of_its_type(
    routes: Sequence[str], subject: bytes, kind: str, handler: int
) -> None:
    one = judge(*routes)
    for _ in range(2):  # the second answer is one that was kept
        checked = check(one, subject, b"", task(kind))
        assert not isinstance(checked, Failed)
        assert (checked[0].type, checked[1]) == (kind, handler)


@pytest.mark.parametrize("subject", [SUBJECT + b"a", b"\xff\xfe", b"", b"elsewhere", CATCH_ALL])
def test_a_type_without_a_handler_is_refused(subject: bytes) -> None:
    assert check(judge("b"), subject, b"", task("a")) == Failed("unknown task type: a has no handler here")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"", b"{"),
        (b"", b""),
        (b"", b"\xff"),
        (b"garbage", task("a")),
        (b"NATS/1.0\r\nAJ-Handler-Deadline: tomorrow\r\n\r\n", task("a")),
        (b"NATS/1.0\r\nAJ-Content-Type: text/plain\r\n\r\n", task("a")),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(head: bytes, body: bytes) -> None:
    checked = check(judge("a"), SUBJECT + b"a", head, body)
    assert isinstance(checked, Failed)
    assert checked.text.startswith("bad request: ")
    assert "\n" not in checked.text


@pytest.mark.parametrize(
    ("ahead", "timeout", "expected"),
    [(None, None, DEFAULT), (None, 5.0, 5.0), (20.0, None, 20.0 - ANSWER_MARGIN), (20.0, 5.0, 5.0)],
)
def test_a_deadline_is_the_soonest_of_header_and_timeout(
    ahead: float | None, timeout: float | None, expected: float
) -> None:
    before = time.monotonic()
    checked = check(judge("a", timeout=timeout), SUBJECT + b"a", b"" if ahead is None else header(ahead), task("a"))
    assert not isinstance(checked, Failed)
    # the header's fraction of a second is cut off
    assert before + expected - 1.1 <= checked[2] <= time.monotonic() + expected


def test_a_request_that_is_late_is_refused() -> None:
    checked = check(judge("a"), SUBJECT + b"a", header(-3), task("a"))
    assert isinstance(checked, Failed)
    # the header's fraction of a second is cut off
    found = re.fullmatch(r"deadline exceeded: it had passed (\S+) s before the request was read", checked.text)
    assert found is not None, checked
    assert 3 <= float(found[1]) < 60


def test_only_a_task_with_a_signature_of_ours_is_served_where_keys_are_configured() -> None:
    key, other = SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
    one = judge("a", signature=SignatureSettings((key.verify_key.encode().hex(),)))
    body = task("a")
    signed = message(read_task(body))
    for signer, served in ((key, True), (other, False)):
        signature = signer.sign(signed).signature.hex()
        whole = body[:-1] + b',"signature":"%b"}' % signature.encode()
        checked = check(one, SUBJECT + b"a", b"", whole)
        assert isinstance(checked, Failed) is not served
    unsigned = check(one, SUBJECT + b"a", b"", body)
    assert isinstance(unsigned, Failed)
    assert unsigned.text.startswith("bad request: ")


def signed(key: SigningKey, **fields: object) -> bytes:
    body: dict[str, object] = {"id": "i", "type": "a", "queue": "Q", "payload": "cA==", "tries": 1, **fields}
    return orjson.dumps(body | {"signature": key.sign(message(read_task(orjson.dumps(body)))).signature.hex()})


def test_a_signed_task_that_is_past_its_deadline_is_refused() -> None:
    key = SigningKey(bytes([7]) * 32)
    one = judge("a", signature=SignatureSettings((key.verify_key.encode().hex(),)))
    now = time.time_ns()
    refused = check(one, SUBJECT + b"a", b"", signed(key, deadline=render_seconds(now - 90 * 10**9)))
    assert isinstance(refused, Failed)
    assert refused.text.startswith("bad request: the task's deadline passed 9")
    served = check(one, SUBJECT + b"a", b"", signed(key, deadline=render_seconds(now + 90 * 10**9)))
    assert not isinstance(served, Failed)
    assert one.unsigned == 1


def test_a_signed_task_that_is_older_than_max_age_is_refused() -> None:
    key = SigningKey(bytes([7]) * 32)
    now = time.time_ns()
    old, young = (signed(key, created=render_seconds(now - age * 10**9)) for age in (120, 30))
    limited = judge("a", signature=SignatureSettings((key.verify_key.encode().hex(),), max_age=60.0))
    refused = check(limited, SUBJECT + b"a", b"", old)
    assert isinstance(refused, Failed)
    assert refused.text.endswith("s ago, signature.max_age is 60 s")
    assert not isinstance(check(limited, SUBJECT + b"a", b"", young), Failed)
    unlimited = judge("a", signature=SignatureSettings((key.verify_key.encode().hex(),)))
    assert not isinstance(check(unlimited, SUBJECT + b"a", b"", old), Failed)


def test_refused_signatures_are_counted() -> None:
    one = judge("a", signature=SignatureSettings((KEY,)))
    for _ in range(10):
        check(one, SUBJECT + b"a", b"", task("a"))
    assert one.unsigned == 10


def test_whatever_goes_wrong_while_a_request_is_checked_is_an_answer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("a library of the application's")

    monkeypatch.setattr("ajhost.roles.request_check.distrust", broken)
    one = judge("a", signature=SignatureSettings((KEY,)))
    for _ in range(3):
        checked = check(one, SUBJECT + b"a", b"", task("a"))
        assert checked == Failed(
            "host error: the request cannot be checked: RecursionError: a library of the application's"
        )
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_type_that_is_too_long_is_a_bad_request() -> None:
    one = judge("")
    assert not isinstance(check(one, CATCH_ALL, b"", task("x" * 255)), Failed)
    for length in (256, 100_000):
        assert check(one, CATCH_ALL, b"", task("x" * length)) == Failed(
            f"bad request: type must have at most 255 bytes, found {length}"
        )


def test_a_type_without_a_handler_is_not_checked_further() -> None:
    one = judge("b", signature=SignatureSettings((KEY,)))
    checked = check(one, SUBJECT + b"a", b"", task("a"))
    assert isinstance(checked, Failed)
    assert checked.text.startswith("unknown task type: ")


def test_any_number_of_types_is_answered_rightly() -> None:
    one = judge("t1")
    for number in range(3000):
        checked = check(one, SUBJECT + b"t1", b"", task(f"t1:{number}"))
        assert not isinstance(checked, Failed)
    assert isinstance(check(one, CATCH_ALL, b"", task("x")), Failed)


class Clock:
    """Both clocks of `time`, of which the wall's runs `ahead` seconds ahead of the routers'."""

    def __init__(self, ahead: float) -> None:
        self.true, self.ahead = 1_000_000.0, ahead

    def monotonic(self) -> float:
        return self.true

    def time_ns(self) -> int:
        return int((self.true + self.ahead) * 1e9)

    def request(self) -> tuple[bytes, bytes]:
        """Header and body of a request that a router sends now, with 6 s to go."""
        tried = int(self.true * 1e9)
        header = b"NATS/1.0\r\nAJ-Handler-Deadline: %b\r\n\r\n" % render_seconds(tried + 6 * 10**9).encode()
        return header, task("a", tried)


def test_a_clock_that_is_years_ahead_is_told_by_what_both_clocks_say() -> None:
    clock = Clock(ahead=10 * 365 * 86_400.0)
    checked = check(judge("a"), SUBJECT + b"a", *clock.request(), clock)
    assert isinstance(checked, Failed)
    assert checked.text == (
        "deadline exceeded: it had passed 315359994 s before the request was read; "
        "sent at 1970-01-12T13:46:40Z by its router's clock, read at 1980-01-10T13:46:40Z by this machine's"
    )


def test_a_clock_that_runs_ahead_is_corrected_for_and_told_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock(ahead=8.0)
    one = judge("a")
    served = []
    with caplog.at_level(logging.WARNING, "ajhost.requests"):
        for _ in range(100):
            checked = check(one, SUBJECT + b"a", *clock.request(), clock)
            served.append(not isinstance(checked, Failed))
            if not isinstance(checked, Failed):
                assert checked[2] <= clock.true + 6.0, "never beyond what the header says"
            clock.true += 1.0
    assert served.index(True) <= 31
    assert all(served[31:])
    assert 1 <= len(caplog.records) <= 2


def test_what_one_process_has_learned_of_the_clock_all_of_the_host_know() -> None:
    clock = Clock(ahead=8.0)
    shared = ClockOffset(ledger_in_memory())
    handler = handlers("a")
    first, idle = (RequestChecker(handler, DEFAULT, UNSIGNED, offset=shared) for _ in range(2))
    while isinstance(check(first, SUBJECT + b"a", *clock.request(), clock), Failed):
        clock.true += 1.0
    new = RequestChecker(handler, DEFAULT, UNSIGNED, offset=shared)
    assert not isinstance(check(new, SUBJECT + b"a", *clock.request(), clock), Failed)
    idle.adopt_offset()
    assert not isinstance(check(idle, SUBJECT + b"a", *clock.request(), clock), Failed)
    clock.ahead = 0.0  # set right; one fresh request shows it to all
    assert not isinstance(check(new, SUBJECT + b"a", *clock.request(), clock), Failed)
    assert shared.ahead == 0.0


def test_a_clock_that_is_too_far_ahead_to_be_corrected_for_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock(ahead=3600.0)
    one = judge("a")
    with caplog.at_level(logging.WARNING, "ajhost.requests"):
        for _ in range(40):
            assert isinstance(check(one, SUBJECT + b"a", *clock.request(), clock), Failed)
            clock.true += 1.0
    assert [record.getMessage() for record in caplog.records] == [
        "this clock is 3600.0 s ahead of the routers'; too much to correct for: set it right"
    ]


@given(st.lists(st.text("aB0.$*> \n_", max_size=9).map(str.encode), min_size=1))
@example([b"a.b", b"a." + b"b" * 5000])
def test_which_reply_subjects_are_answered_does_not_depend_on_those_before(replies: list[bytes]) -> None:
    checker = RequestChecker(handlers("a"), DEFAULT, UNSIGNED, ["_", "a"])
    pattern = reply_subjects(["_", "a"])
    for reply in replies:
        for _ in range(2):  # the second answer is one that was kept
            assert checker.answerable(reply) == bool(pattern.match(reply))


def test_requesters_are_remembered_within_bounds() -> None:
    checker = judge("a")
    for number in range(3000):
        assert checker.answerable(b"_INBOX.%d.x" % number)
        assert checker.answerable(b"_INBOX.%d.x" % (number + (1 << 300)))
    kept = sum(map(len, checker._inboxes))
    assert 0 < kept < 64 * 1024


def test_all_that_is_remembered_of_requests_is_bounded_in_bytes() -> None:
    checker = judge("")
    tracemalloc.start()
    try:
        for number in range(6000):
            name = f"{number:05d}"
            subject = SUBJECT + (name * 99).encode()
            late = f"NATS/1.0\r\nX: {name * 70}\r\nAJ-Handler-Deadline: 2{number % 1000:03d}-01-01T00:00:00Z\r\n\r\n"
            check(checker, subject, late.encode(), task(f"{name}:" + "t" * 120, number * 10**12))
            check(checker, SUBJECT + name.encode(), header(20), task(f"{name}:" + "t" * 240))
            assert checker.answerable(f"_INBOX.{name * 11}.1".encode())
        _, kept = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 << 20


def test_subjects_of_a_false_server_are_not_remembered() -> None:
    checker = judge("")
    tracemalloc.start()
    try:
        for number in range(100):
            subject = b"%b%d%b" % (SUBJECT, number, b"x" * 60_000)
            assert not isinstance(check(checker, subject, header(20), task("a")), Failed)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
