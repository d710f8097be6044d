"""Every way of a host onto its servers: what the server is told, what the administrator puts where, what is secret."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys

from tests.support.host import Section


@dataclass(frozen=True, slots=True)
class Access:
    """One way.

    `server`: text for the server's configuration. `files`: name to content of what lies in /etc/ajhost/credentials.
    `sections`: the host's settings. `router`: how the test's own client gets in. `secrets`: what nobody may ever see.
    """

    server: str
    files: Mapping[str, str]
    sections: Mapping[str, Section]
    router: Mapping[str, Any]
    secrets: tuple[str, ...]


def password(_: Path) -> Access:
    """A user and a password."""
    word = "correct-horse-battery-staple"
    return Access(
        server=f'authorization {{ users: [{{ user: host, password: "{word}" }}] }}',
        files={"password": word + "\n"},
        sections={"nats": {"user": "host", "password_file": "credentials/password"}},
        router={"user": "host", "password": word},
        secrets=(word,),
    )


def token(_: Path) -> Access:
    """A token."""
    word = "open-sesame-and-be-quick"
    return Access(
        server=f'authorization {{ token: "{word}" }}',
        files={"token": word + "\n"},
        sections={"nats": {"token_file": "credentials/token"}},
        router={"token": word},
        secrets=(word,),
    )


def nkey(directory: Path) -> Access:
    """The seed of an nkey."""
    seed, pair = _pair(nkeys.PREFIX_BYTE_USER)
    return Access(
        server=f"authorization {{ users: [{{ nkey: {_public(pair)} }}] }}",
        files={"nats.nk": seed + "\n"},
        sections={"nats": {"nkey": "credentials/nats.nk"}},
        router={"nkeys_seed": str(_kept(directory / "router.nk", seed))},
        secrets=(seed,),
    )


def creds(directory: Path) -> Access:
    """A user's JWT and seed, of an account of an operator; the server resolves accounts from its memory."""
    _, operator = _pair(nkeys.PREFIX_BYTE_OPERATOR)
    _, account = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, user = _pair(nkeys.PREFIX_BYTE_USER)
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    account_jwt = _jwt(operator, account, "account", {"limits": unlimited | {"wildcards": True}})
    user_jwt = _jwt(account, user, "user", dict.fromkeys(("subs", "data", "payload"), -1))
    text = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return Access(
        server=(
            f"operator: {_jwt(operator, operator, 'operator', {})}\n"
            f"resolver: MEMORY\nresolver_preload: {{ {_public(account)}: {account_jwt} }}"
        ),
        files={"nats.creds": text},
        sections={"nats": {"creds": "credentials/nats.creds"}},
        router={"user_credentials": str(_kept(directory / "router.creds", text))},
        secrets=(seed, user_jwt.rpartition(".")[2]),
    )


def mutual_tls(directory: Path) -> Access:
    """A certificate and its key; the server lets nobody in without one of its authority."""
    authority = _certificate(directory, "ca", "/CN=tests", "basicConstraints=critical,CA:TRUE", None)
    names = "subjectAltName=IP:127.0.0.1"
    server, server_key = _certificate(directory, "server", "/CN=server", names, authority)
    host, host_key = _certificate(directory, "host", "/CN=host", "extendedKeyUsage=clientAuth", authority)
    context = ssl.create_default_context(cafile=authority[0])
    context.load_cert_chain(host, host_key)
    key = host_key.read_text()
    return Access(
        server=(f'tls {{ cert_file: "{server}", key_file: "{server_key}", ca_file: "{authority[0]}", verify: true }}'),
        files={"ca.pem": authority[0].read_text(), "host.pem": host.read_text(), "host.key": key},
        sections={
            "nats.tls": {
                "ca": "credentials/ca.pem",
                "cert": "credentials/host.pem",
                "key": "credentials/host.key",
            }
        },
        router={"tls": context},
        secrets=tuple(line for line in key.splitlines() if "-----" not in line),
    )


WAYS: dict[str, Callable[[Path], Access]] = {way.__name__: way for way in (password, token, nkey, creds, mutual_tls)}


def _kept(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def _pair(prefix: int) -> tuple[str, nkeys.KeyPair]:
    seed = nkeys.encode_seed(os.urandom(32), prefix)
    return seed.decode(), nkeys.from_seed(bytearray(seed))


def _public(pair: nkeys.KeyPair) -> str:
    public: str = pair.public_key.decode()
    return public


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, claims: Mapping[str, Any]) -> str:
    """A NATS JWT (ADR-14; github.com/nats-io/jwt, v2)."""
    body = {
        "iat": int(time.time()),
        "iss": _public(issuer),
        "name": kind,
        "nats": {**claims, "type": kind, "version": 2},
        "sub": _public(subject),
    }
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _certificate(
    directory: Path, name: str, subject: str, extension: str, authority: tuple[Path, Path] | None
) -> tuple[Path, Path]:
    """A certificate that `authority` has signed, itself if there is none, and its key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    signer: list[str | Path] = []
    if authority is not None:
        signer = ["-CA", authority[0], "-CAkey", authority[1]]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    what = ["-subj", subject, "-addext", extension, "-days", "2"]
    subprocess.run([*new, *signer, *what, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    key.chmod(0o600)
    return certificate, key
