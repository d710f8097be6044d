"""INFO is believed only as far as it is one."""

from __future__ import annotations

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.protocol.server_info import InfoError, read_info

GOOD = {"server_id": "N1", "version": "2.12", "max_payload": 1000, "headers": True, "nonce": "abc"}


def info(**fields: object) -> bytes:
    return b"INFO " + orjson.dumps(GOOD | fields) + b" \r\n"


def test_a_servers_info_is_read() -> None:
    found = read_info(info(connect_urls=["a:1"], ldm=True, cluster="c", tls_required=True, unknown=[1]))
    assert (found.server_id, found.max_payload, found.lame_duck, found.clustered) == ("N1", 1000, True, True)
    assert found.connect_urls == ("a:1",)
    assert found.offers_tls


@pytest.mark.parametrize(
    "line",
    [
        b"", b"INFO", b"INFO \r\n", b"INFO {\r\n", b"INFO []\r\n", b'INFO "x"\r\n', b"INFO \xff\xfe\r\n", b"PING\r\n",
        b"HTTP/1.1 400 Bad Request\r\n", b"SSH-2.0-x\r\n", info(connect_urls=5), info(connect_urls=[5]),
        info(connect_urls={"a": 1}), info(connect_urls=["x" * 5000]), info(max_payload="x"), info(max_payload=-1),
        info(max_payload=0), info(max_payload=1.5), info(max_payload=True), info(max_payload=None),
        info(tls_required="yes"), info(nonce=5), info(server_id=["x"]), info(headers=1), info(ldm="true"),
        info(version="x" * 5000), info(server_id="x" * (1 << 21)), b"INFO " + b"[" * 100_000 + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_info_is_told(line: bytes) -> None:
    with pytest.raises(InfoError):
        read_info(line)


@given(st.binary(max_size=200))
def test_nothing_else_is_ever_raised(text: bytes) -> None:
    with contextlib.suppress(InfoError):
        read_info(b"INFO " + text)
