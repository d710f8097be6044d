"""What Go itself reads of each reply that the host encodes, and that its model in the unit tests reads the same."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from ajhost.protocol.outcome import Failed, Terminated
from ajhost.protocol.reply_encoding import encode_reply, sanitise
from tests.router.conftest import built
from tests.unit.protocol.test_reply_encoding import MAX_PAYLOAD, go_header, published


@pytest.fixture(scope="session")
def headers_reader() -> Path:
    """A Go program that reads headers with nats.go."""
    return built("headers")


def test_go_itself_reads_each_reply_as_its_outcome(headers_reader: Path) -> None:
    texts = [
        "x",
        "",
        "\r\n",
        "a\r\nb: c",
        "a\nb",
        "\x00",
        "é" * 2000,
        "\ud800",
        ":",
        ": :",
        "\u2028",
        "\x85x",
        "\t x \t",
    ]
    texts += [chr(code) for code in range(0x180)] + [f"a{chr(code)}b" for code in range(0x180)]
    texts += [
        "\U0001f600" * 300,
        "AJ-Error",
        "AJ-Terminate: x\r\n\r\nbody",
        "x" * 5000,
        "\ufeff",
        "\ufffe\uffff",
    ]
    outcomes: list[Failed | Terminated] = [kind(text) for text in texts for kind in (Failed, Terminated)]
    blocks = [published(encode_reply(b"r", outcome, MAX_PAYLOAD))[1] for outcome in outcomes]
    given_to_go = json.dumps([base64.b64encode(header).decode() for header in blocks])
    ran = subprocess.run([headers_reader], input=given_to_go, capture_output=True, text=True, check=True)
    for outcome, header, reading in zip(outcomes, blocks, json.loads(ran.stdout), strict=True):
        assert reading["Problem"] == "", header
        terminate, failed = (base64.b64decode(reading[field]).decode() for field in ("Terminate", "Failed"))
        wanted = sanitise(outcome.text)
        assert (terminate, failed) == (("", wanted) if isinstance(outcome, Failed) else (wanted, "")), header
        assert go_header(header) == {
            (b"AJ-Error" if isinstance(outcome, Failed) else b"AJ-Terminate"): wanted.encode()
        }, "the model differs from Go"


def test_the_model_of_go_s_header_reader_is_go_s(headers_reader: Path) -> None:
    blocks = [
        b"",
        b"NATS/1.0",
        b"NATS/1.0\r\n\r\n",
        b"NATS/1.0\r\nAJ-Error\r\n\r\n",
        b"NATS/1.0\r\nAJ-Error: x\r\nnonsense\r\n\r\n",
        b"NATS/1.0\r\nAJ-Error:\r\n\r\n",
        b"NATS/1.0\r\nAJ-Error: \t \r\n\r\n",
        b"NATS/1.0\r\nAJ-Error: x \r\n\r\n",
        b"NATS/1.0\r\nAJ-Error: x\nAJ-Terminate: y\n\n",
        b"NATS/1.0\r\nAJ-Error: x\r\nAJ-Error: y\r\n\r\n",
        b"NATS/1.0\r\naj-error: x\r\n\r\n",
        b"NATS/1.0\r\n: x\r\nAJ-Error: y\r\n\r\n",
        b"NATS/1.0\r\nAJ-Error: a\rb\r\n\r\n",
        b"HTTP/1.1\r\nAJ-Error: x\r\n\r\n",
    ]
    given_to_go = json.dumps([base64.b64encode(header).decode() for header in blocks])
    ran = subprocess.run([headers_reader], input=given_to_go, capture_output=True, text=True, check=True)
    for header, reading in zip(blocks, json.loads(ran.stdout), strict=True):
        values = go_header(header)
        assert (values is None) == (reading["Problem"] != ""), header
        found = values or {}
        assert found.get(b"AJ-Error", b"") == base64.b64decode(reading["Failed"] or ""), header
        assert found.get(b"AJ-Terminate", b"") == base64.b64decode(reading["Terminate"] or ""), header
