"""A server's URL means what it means in Go."""

from __future__ import annotations

import pytest

from ajhost.protocol.server_url import read_server_url


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("nats://localhost:4222", "localhost", 4222),
        ("tls://nats.example", "nats.example", 4222),
        ("NATS://10.0.0.1:1/", "10.0.0.1", 1),
        ("nats://[::1]:5", "::1", 5),
        ("nats://[::1]", "::1", 4222),
        ("nats://[fe80::1%25eth0]:5", "fe80::1%eth0", 5),
    ],
)
def test_places(url: str, host: str, port: int) -> None:
    found = read_server_url(url)
    assert (found.host, found.port, found.user, found.token) == (host, port, None, None)


@pytest.mark.parametrize(
    ("secret", "user", "password", "token"),
    [
        ("a:b", "a", "b", None),
        ("a%40b:p%3Aw", "a@b", "p:w", None),
        ("a:p%2Fw%3F%23", "a", "p/w?#", None),
        ("a+b:c+d", "a+b", "c+d", None),
        ("a:p%25w", "a", "p%w", None),
        ("a:%C3%A4", "a", "ä", None),
        ("a:b:c", "a", "b:c", None),
        ("a:", "a", "", None),
        ("t%3Dx", None, None, "t=x"),
        ("t+%20x", None, None, "t+ x"),
    ],
)
def test_secrets(secret: str, user: str | None, password: str | None, token: str | None) -> None:
    found = read_server_url(f"nats://{secret}@h:1")
    assert (found.user, found.password, found.token, found.host) == (user, password, token, "h")
    assert "p" not in repr(found).replace("port", "").replace("ServerUrl", "")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:4222", "http://h", "nats://", "nats://h:0", "nats://h:70000", "nats://h:x", "nats://h/p",
        "nats://h?x", "nats://h#x", "nats://a:se%zzcret@h", "nats://a:se cret@h", "nats://a:se@cret@h",
        "nats://[::1", "nats://::1:4222", "nats://[::1]x", "nats://a:se/cret@h", "nats://a:secret\n@h", "nats://h%41",
        "nats://a..b", "nats://.h", f"nats://{'a' * 64}.example",
    ],
)  # fmt: skip
def test_what_is_no_url_is_told_without_a_secret(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read_server_url(url)
    assert "cret" not in str(raised.value)
