"""Decides by its bearer token and its Host name whether a request may see the page and the status over HTTP."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from ajhost.adapters.http import PLAIN_TEXT, Page


@dataclass(frozen=True, slots=True)
class PageAccess:
    """Decides which requests may see guarded pages.

    `token`: required as `Authorization: Bearer TOKEN`, or as the password of Basic authentication with any user name.
    None: no token is required. `hosts`: names allowed in the Host header besides addresses and `localhost`. This stops
    DNS rebinding: a page of another site whose name is made to resolve to this host sends that name.
    """

    token: bytes | None = None
    hosts: frozenset[str] = frozenset()

    def refusal(self, headers: Mapping[bytes, bytes]) -> Page | None:
        """Returns the answer to a refused request (401, 421); None if it is allowed. Header names are lower case."""
        name = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if not (name in ("", "localhost") or _is_address(name) or name in self.hosts):
            return Page(421, PLAIN_TEXT, b"this host is not called so; see [http] hosts\n")
        if self.token is None or hmac.compare_digest(_credential(headers.get(b"authorization", b"")), self.token):
            return None
        return Page(
            401, PLAIN_TEXT, b"the token of [http] token_file is needed\n",
            ((b"www-authenticate", b'Basic realm="ajhost, the token is the password"'),),
        )  # fmt: skip


def _host_name(header: str) -> str:
    name = header.strip().lower()
    if name.startswith("["):
        address, _, port = name[1:].partition("]")
        return name if port.strip(":0123456789") else address
    return name.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _credential(header: bytes) -> bytes:
    """Returns the token in an Authorization header (RFC 6750, RFC 7617); empty when there is none."""
    scheme, _, value = header.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        with contextlib.suppress(binascii.Error):
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    return b""
