"""What the host says as a NATS service, in the shape that other clients insist on."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.protocol.service_api import (
    Service,
    ServiceEndpoint,
    ServiceInfo,
    Verb,
    answer,
    covers,
    read_info,
    subjects,
    verb_of,
    version,
)

SERVICE = Service("ajhost", "abc", "0.1.0", "Python handlers", "2026-01-01T00:00:00Z", (("host", "web-1"),))
NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z.-]+)?\Z")


def body(verb: Verb, *endpoints: ServiceEndpoint) -> dict[str, Any]:
    return dict(orjson.loads(answer(verb, SERVICE, endpoints)))


def test_it_listens_for_all_services_for_its_name_and_for_itself() -> None:
    assert {s for s in subjects(SERVICE) if "PING" in s} == {
        "$SRV.PING",
        "$SRV.PING.ajhost",
        "$SRV.PING.ajhost.abc",
    }
    assert all(verb_of(s) is not None for s in subjects(SERVICE))
    assert [verb_of(s) for s in ("CHORIA_AJ.H.T.PING", "$SRV.SCHEMA", "$SRV", "")] == [None] * 4


def test_a_ping_says_who_it_is() -> None:
    assert body(Verb.PING) == {
        "type": "io.nats.micro.v1.ping_response",
        "name": "ajhost",
        "id": "abc",
        "version": "0.1.0",
        "metadata": {"host": "web-1"},
    }


def test_statistics_are_whole_numbers_and_the_last_error_a_text() -> None:
    told = body(Verb.STATS, ServiceEndpoint("email:new", "CHORIA_AJ.H.T.email:new", "ajhost", 3, 1, 700))
    assert told["endpoints"] == [
        {
            "name": "email-new",
            "subject": "CHORIA_AJ.H.T.email:new",
            "queue_group": "ajhost",
            "num_requests": 3,
            "num_errors": 1,
            "last_error": "",
            "processing_time": 700,
            "average_processing_time": 233,
        }
    ]


@given(st.lists(st.text("ab:-_é. ", max_size=6), unique=True, max_size=8))
def test_names_of_endpoints_are_valid_and_each_its_own(routes: list[str]) -> None:
    told = body(Verb.INFO, *(ServiceEndpoint(route, "s", "q") for route in routes))["endpoints"]
    names = [endpoint["name"] for endpoint in told]
    assert len(set(names)) == len(routes)
    assert all(NAME.match(name) for name in names)
    assert [endpoint["metadata"]["route"] for endpoint in told] == routes


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("1.2.3", "1.2.3"),
        ("0.1.0.dev3", "0.1.0-dev3"),
        ("0.2rc1", "0.2.0-rc1"),
        ("1", "1.0.0"),
        ("1.0.0+local", "1.0.0+local"),
        ("unknown", "0.0.0"),
    ],
)
def test_a_version_of_python_s_becomes_a_semantic_one(given: str, told: str) -> None:
    assert version(given) == told
    assert SEMVER.match(told)


def test_what_another_host_says_is_read_and_what_is_no_answer_is_passed_over() -> None:
    told = answer(Verb.INFO, SERVICE, [ServiceEndpoint("a", "CHORIA_AJ.H.T.a", "b")])
    assert read_info(told) == ServiceInfo("ajhost", "abc", {"host": "web-1"}, (("CHORIA_AJ.H.T.a", "b"),))
    plain = b'{"name": "n", "id": "i", "endpoints": [{"subject": "a.>"}], "metadata": null}'
    assert read_info(plain) == ServiceInfo("n", "i", {}, (("a.>", ""),))
    broken = b'{"name": "n", "id": "i", "endpoints": %b, "metadata": %b}'
    strange = (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        broken % (b"[7]", b"{}"),
        broken % (b"7", b"{}"),
        broken % (b"[]", b"5"),
    )
    assert [read_info(body) for body in strange] == [None] * len(strange)


@pytest.mark.parametrize(
    ("pattern", "subject", "does"),
    [
        ("a.b", "a.b", True), ("a.*", "a.b", True), ("a.>", "a.b.c", True), (">", "a", True), ("*", "a", True),
        ("a.b", "a.c", False), ("a.>", "a", False), ("a", "a.b", False), ("a.*", "a.b.c", False), ("", "a", False),
    ],
)  # fmt: skip
def test_a_wildcard_covers_a_subject_as_the_server_says(pattern: str, subject: str, does: bool) -> None:
    assert covers(pattern, subject) is does
