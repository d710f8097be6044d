"""The certificate authorities that this process trusts if the settings name none: an interpreter may bring its own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

from ajhost.core.trusted_authorities import Trust

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")
"""Names in a directory of authorities, as OpenSSL looks for them (openssl-rehash(1))."""


def stores() -> str:
    """Names the files of this process's authorities, in words for operators."""
    paths = ssl.get_default_verify_paths()
    found = [path for path in (paths.cafile, paths.capath) if path]
    where = " and ".join(found) or f"nobody: neither {paths.openssl_cafile} nor {paths.openssl_capath} is there"
    return f"the authorities of {sys.executable}: {where}"


def own_trust() -> Trust:
    """Returns the authorities that this process trusts, as text and as a digest."""
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
