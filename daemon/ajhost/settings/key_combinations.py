"""Checks rules over several keys: keys that need, exclude or bound others, secrets in open files, certificates."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from ajhost.settings.merge import MergedTables
from ajhost.settings.secret_files import open_settings_file
from ajhost.settings.sections import NatsSettings, TlsSettings
from ajhost.settings.validation import SECRET_KEYS

_WHO = ("creds", "nkey", "token", "token_file", "user")
_BESIDE_CONTEXT = ("servers", *_WHO, "password", "password_file", "tls")


def check_combinations(tables: MergedTables) -> None:
    """Adds a problem for each rule that the merged tables break."""
    if isinstance(nats := tables.raw.get("nats"), dict):
        _check_access(tables, nats)
        _check_open(tables, nats)
    _check_signature(tables)


def _check_access(tables: MergedTables, nats: Mapping[str, Any]) -> None:
    if "context" in nats:
        for key in _BESIDE_CONTEXT:
            if key in nats:
                tables.add(("nats", key), "it beside nats.context", "one of the two")
        return
    _check_who(tables, nats)
    _check_pings(tables, nats)
    tls = nats.get("tls")
    if isinstance(tls, dict) and "key" in tls and "cert" not in tls and tables.whole:
        tables.add(("nats", "tls", "key"), "it without nats.tls.cert", "both or neither")


def _check_who(tables: MergedTables, nats: Mapping[str, Any]) -> None:
    ways = [key for key in _WHO if key in nats]
    if len(ways) > 1:
        tables.add(("nats", ways[1]), f"{' and '.join(ways)} together", f"one of {', '.join(_WHO)}")
    passwords = [key for key in ("password", "password_file") if key in nats]
    if len(passwords) > 1:
        tables.add(("nats", "password_file"), "it beside nats.password", "one of the two")
    if passwords and "user" not in nats and tables.whole:
        tables.add(("nats", passwords[0]), "it without nats.user", "both or neither")
    if "user" in nats and not passwords and tables.whole:
        tables.add(("nats", "user"), "it without a password", "password or password_file beside it")


def _check_signature(tables: MergedTables) -> None:
    """Adds a problem for a table `[signature]` without keys: no signature would be checked."""
    signature = tables.raw.get("signature")
    if not tables.whole or not isinstance(signature, dict) or signature.keys() & {"keys", "key_file"}:
        return
    if signature.get("max_age"):
        tables.add(("signature", "max_age"), "it without signature.keys", "keys or key_file beside it")
    elif not signature:
        tables.add(("signature",), "an empty table", "keys or key_file in it; no table for no signatures")


def _check_pings(tables: MergedTables, nats: Mapping[str, Any]) -> None:
    defaults = NatsSettings()
    interval = nats.get("ping_interval", defaults.ping_interval)
    limit = nats.get("ping_timeout", defaults.ping_timeout)
    numbers = all(isinstance(n, int | float) for n in (interval, limit))
    if numbers and limit <= interval:
        key = "ping_timeout" if "ping_timeout" in nats else "ping_interval"
        found = f"a ping_timeout of {limit:g} s and a ping_interval of {interval:g} s"
        tables.add(("nats", key), found, "a ping_timeout that is longer than the ping_interval")


def _check_open(tables: MergedTables, nats: Mapping[str, Any]) -> None:
    """Adds a problem for each secret in a settings file that every user may read."""
    servers = nats.get("servers")
    with_secret = isinstance(servers, list) and any("@" in str(server) for server in servers)
    for key in [*sorted(SECRET_KEYS & nats.keys()), *(["servers"] if with_secret else [])]:
        file = tables.source(("nats", key))
        if problem := open_settings_file(file, tables.modes.get(file, 0)):
            tables.add(("nats", key), *problem)


def check_certificates(tables: MergedTables, tls: TlsSettings | None) -> None:
    """Adds a problem for certificates that cannot be used, or whose private key belongs to another one."""
    if tls is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ssl.SSLError) as error:
        tables.add(("nats", "tls", "ca"), f"{tls.ca} ({_reason(error)})", "certificates in PEM")
    try:
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        found = f"{tls.cert} ({_reason(error)})"
        tables.add(("nats", "tls", "cert"), found, "a certificate and the private key that belongs to it")


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error).replace("_", " ").lower()
