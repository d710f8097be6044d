"""Whom this process trusts to vouch for servers when the settings name no authority: interpreters bring their own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ajhost.adapters.nats.credentials import wants_tls
from ajhost.settings.values import NatsSettings

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")
"""Names in a directory of authorities, as OpenSSL looks for them (openssl-rehash(1))."""


@dataclass(frozen=True, slots=True)
class Trust:
    """`where`: interpreter and stores, for people. `digest` is the same for the same authorities, wherever they lie."""

    where: str
    digest: str

    def difference(self, other: Trust) -> str:
        """What a worker that has `other` must be told of; empty when both trust the same."""
        if self.digest == other.digest:
            return ""
        return (
            f"the handlers' interpreter trusts others than the host's: {other.where}; the host has {self.where}. "
            "Workers may refuse a certificate that the host accepts: name the authority with nats.tls.ca"
        )


def matters(settings: NatsSettings) -> bool:
    """Whether the connection depends on what the interpreter trusts."""
    return wants_tls(settings) and (settings.tls is None or settings.tls.ca is None)


def stores() -> str:
    """Where this process's authorities come from, for people."""
    paths = ssl.get_default_verify_paths()
    found = [path for path in (paths.cafile, paths.capath) if path]
    where = (
        " and ".join(found) or f"nobody: neither {paths.openssl_cafile} nor {paths.openssl_capath} is there"
    )
    return f"the authorities of {sys.executable}: {where}"


def own_trust() -> Trust:
    """This process's."""
    digests = sorted({hashlib.sha256(certificate).digest() for certificate in _certificates()})
    return Trust(f"{stores()} ({len(digests)})", hashlib.sha256(b"".join(digests)).hexdigest())


def _certificates() -> Iterator[bytes]:
    paths = ssl.get_default_verify_paths()
    files = [Path(paths.cafile)] if paths.cafile else []
    with contextlib.suppress(OSError):
        if paths.capath:
            files += [file for file in Path(paths.capath).iterdir() if _HASHED.match(file.name)]
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            for found in _CERTIFICATE.finditer(file.read_bytes()):
                yield base64.b64decode(found[1])
