"""Reads the URL of a NATS server as Go's client does (net/url, nats.go `connectProto`): port, user, password, token."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

_SCHEMES = ("nats", "tls")
_HOST = re.compile(r"\[[0-9a-fA-F:.]+(?:%25[\w.~-]+|%[\w.~-]+)?\]\Z|[\w.-]+\Z")
_DIGITS = re.compile(r"[0-9.]+\Z")
_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_PORT = re.compile(r"[0-9]{1,5}\Z")
DEFAULT_PORT = 4222


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """A server's address, and the credentials in its URL: user and password, or a token (a user without a password)."""

    scheme: str
    host: str
    port: int
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def read_server_url(url: str) -> ServerUrl:
    """Reads `nats://[USER[:PASSWORD]@]HOST[:PORT]` or `tls://...`.

    In user, password and token `%XX` is a byte of UTF-8 (RFC 3986, section 2.1), and `+` is a plus.

    :raises ValueError: the text says what is wrong, and never shows a part that may be a secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError("no scheme")
    scheme = scheme.lower()
    if scheme not in _SCHEMES:
        raise ValueError(f"the scheme {scheme[:20]!r}")
    if " " in url or not url.isprintable():  # a blank is the only white space that is printable
        raise ValueError("white space or a control character")
    authority, _, path = rest.partition("/")
    if "?" in rest or "#" in rest or path:
        raise ValueError("a path, a query or a fragment (in a password, / ? # are written %2F %3F %23)")
    secret, at, place = authority.rpartition("@")
    host, port = _place(place)
    if not at:
        return ServerUrl(scheme, host, port)
    user, colon, password = secret.partition(":")
    if _ESCAPE.search(secret):
        raise ValueError("a % that no two hexadecimal digits follow (a % itself is written %25)")
    if "@" in secret:
        raise ValueError("an @ in user or password (written %40)")
    if not colon:
        return ServerUrl(scheme, host, port, token=unquote(user) or None)
    return ServerUrl(scheme, host, port, user=unquote(user), password=unquote(password))


def _place(place: str) -> tuple[str, int]:
    if place.startswith("["):
        inner, bracket, port = place.partition("]")
        host, port = inner + bracket, port.removeprefix(":") if port.startswith(":") else port and "?"
    else:
        host, _, port = place.partition(":")
    if not _HOST.match(host):
        if strange := re.search(r"[$<>{}*]", host):
            raise ValueError(f"{strange[0]!r} in the host's name (variables and patterns are not replaced)")
        raise ValueError("a host that is none (an IPv6 address is written [::1])")
    if not host.startswith("[") and not all(0 < len(part) < 64 for part in host.removesuffix(".").split(".")):
        raise ValueError("a host with a part between dots that is empty, or longer than 63 characters")
    if _DIGITS.match(host) and not _is_address(host):
        raise ValueError("an address that is none")
    if port and (not _PORT.match(port) or not 0 < int(port) < 1 << 16):
        raise ValueError("a port that is none")
    return host.strip("[]").replace("%25", "%"), int(port) if port else DEFAULT_PORT


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
