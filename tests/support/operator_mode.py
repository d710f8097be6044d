"""Operator mode: an operator, an account and users as JWTs, made as `nsc` makes them, and a server that trusts them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys


class Identity:
    """A key pair of NATS."""

    def __init__(self, prefix: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def sign(self, data: bytes) -> bytes:
        """An ed25519 signature."""
        signature: bytes = self._pair.sign(data)
        return signature


def _part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")


def _jwt(issuer: Identity, subject: str, name: str, nats: dict[str, Any], expires: float | None) -> str:
    claims: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": issuer.public,
        "name": name,
        "sub": subject,
        "nats": nats,
    }
    if expires is not None:
        claims["exp"] = int(expires)
    digest = hashlib.new("sha512_256", json.dumps(claims).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = _part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + _part(claims)
    return (head + b"." + base64.urlsafe_b64encode(issuer.sign(head)).rstrip(b"=")).decode()


def creds(token: str, seed: str) -> str:
    """A credentials file's text."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n"
        "NKEYs are sensitive and should be treated as secrets.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n\n"
        "*************************************************************\n"
    )


class Operator:
    """An operator with one account. `config()` is what the server needs; users are made by `user`."""

    def __init__(self, *, jetstream: bool = False) -> None:
        """`jetstream`: the account may use it, without limits."""
        self._jetstream = jetstream
        self._system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        """JetStream needs it beside the account."""
        self._operator = Identity(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        self._token = _jwt(  # one for ever: a server that reloads takes no other
            self._operator, self._operator.public, "operator", {"type": "operator", "version": 2}, None
        )
        self.revoked: dict[str, int] = {}
        """Public key of a user -> Unix second up to which what was issued to it counts no more."""

    def config(self) -> str:
        """Configuration text of a server that trusts this operator and knows its account."""
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        account: dict[str, Any] = {
            "limits": limits | {"wildcards": True} | (storage if self._jetstream else {}),
            "default_permissions": {"pub": {}, "sub": {}},
            "type": "account",
            "version": 2,
        }
        if self.revoked:
            account["revocations"] = self.revoked
        accounts = {self._account.public: _jwt(self._operator, self._account.public, "account", account, None)}
        system = ""
        if self._jetstream:
            claims = {"limits": limits | {"wildcards": True}, "type": "account", "version": 2}
            accounts[self._system.public] = _jwt(self._operator, self._system.public, "system", claims, None)
            system = f"system_account: {self._system.public}\n"
        preload = "".join(f'{account}: "{token}"\n' for account, token in accounts.items())
        return f'operator: "{self._token}"\n{system}resolver: MEMORY\nresolver_preload: {{\n{preload}}}\n'

    def user(
        self,
        name: str,
        *,
        lasts: float | None = None,
        identity: Identity | None = None,
        pub: dict[str, list[str]] | None = None,
        sub: dict[str, list[str]] | None = None,
        payload: int = -1,
    ) -> str:
        """The credentials of a user, which expire after `lasts` seconds; `pub` and `sub` are its permissions, `payload`
        what its messages may have in bytes.
        """
        identity = identity or Identity(nkeys.PREFIX_BYTE_USER)
        nats: dict[str, Any] = {
            "pub": pub or {},
            "sub": sub or {},
            "subs": -1,
            "data": -1,
            "payload": payload,
            "type": "user",
            "version": 2,
        }
        expires = None if lasts is None else time.time() + lasts
        return creds(_jwt(self._account, identity.public, name, nats, expires), identity.seed)

    def revoke(self, identity: Identity) -> None:
        """What was issued to this user up to now counts no more, once the server has the new `config`."""
        self.revoked[identity.public] = int(time.time())


def user_identity() -> Identity:
    """A user's key pair."""
    return Identity(nkeys.PREFIX_BYTE_USER)


def write_secret(path: Path, text: str) -> Path:
    """Writes a file that only we may read, in one step."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)
    return path
