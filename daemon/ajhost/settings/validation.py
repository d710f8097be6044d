"""Validates merged tables. Problems are a wrong value, an unknown key (it names the one that was probably meant), keys
that need, exclude or bound others, a secret in a settings file that everybody may read, and certificates that cannot be
used or do not fit their key.

Rules over several keys come first; those for one key are the schema's. Certificates are tried once the settings are
built.
"""

from __future__ import annotations

import difflib
import ssl
import stat
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ajhost.protocol.secret_masking import hidden
from ajhost.settings.errors import InvalidValue, shown
from ajhost.settings.merge import KeyPath, MergedTables, key_text
from ajhost.settings.schema import TABLES, Document, table_at
from ajhost.settings.secret_files import Files
from ajhost.settings.sections import NatsSettings, TlsSettings

SECRET_KEYS = frozenset(("password", "token"))
_MAY_BE_SECRET = ("nats", "signature")
"""Tables in which a wrong value may be a secret under the wrong key, so that errors do not show it."""
_WHO = ("creds", "nkey", "token", "token_file", "user")
_BESIDE_CONTEXT = ("servers", *_WHO, "password", "password_file", "tls")


def validate(tables: MergedTables, files: Files) -> Document | None:
    """Returns the tables as the schema's models; or None. Adds every mistake to `tables.problems`."""
    if isinstance(nats := tables.raw.get("nats"), dict):
        _check_access(tables, nats)
        _check_open(tables, nats)
    _check_signature(tables)
    try:
        return Document.model_validate(tables.raw, context=files)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _add_error(tables, details)
    return None


def _add_error(tables: MergedTables, details: Mapping[str, Any]) -> None:
    path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    kind = details["type"]
    if kind == "missing" or (kind == "too_short" and path == ("handlers",)):
        # the missing key may be in a file that could not be read
        if tables.whole:
            tables.add(path, "nothing", _description(path))
    elif kind == "extra_forbidden":
        tables.add(path, "an unknown key", _alternatives(path))
    elif isinstance(unfit := details.get("ctx", {}).get("error"), InvalidValue):
        tables.add(path, unfit.found, unfit.allowed)
    elif path[-1] in SECRET_KEYS:
        tables.add(path, "something else", _description(path))
    elif path[0] in _MAY_BE_SECRET and isinstance(details["input"], str):
        tables.add(path, hidden(details["input"]), _description(path))
    else:
        tables.add(path, shown(details["input"]), _description(path))


def _description(path: KeyPath) -> str:
    """Returns the schema's text on what is allowed at `path`; for an item of a list, that of the list."""
    names = tuple(part for part in path if isinstance(part, str))
    if len(names) == 2 and names[0] == "handlers":
        return 'a table [handlers."<route>"]'
    while (table := table_at(names[:-1])) is None and len(names) > 1:
        names = names[:-1]  # a key of the user's choice, like a logger in [log.levels]
    if table is None or names[-1] not in table.model_fields:
        raise AssertionError(f"nothing is known of {key_text(path)}")
    return table.model_fields[names[-1]].description or ""


def _alternatives(path: KeyPath) -> str:
    """Returns the allowed keys of the table in which `path` is unknown, and the one that was probably meant."""
    *names, wrong = (str(part) for part in path)
    table = table_at(tuple(names))
    known = list(table.model_fields) if table is not None else []
    near = [key_text((*names, name)) for name in difflib.get_close_matches(wrong, known, n=1)]
    meant = near or [key_text((*place, wrong)) for place, table in TABLES.items() if wrong in table.model_fields]
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return ", ".join(known) + hint


# -- rules over several keys ----------------------------------------------------------------------


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
    """Adds a problem for each secret in a settings file that every user may read. Its group may read it."""
    servers = nats.get("servers")
    with_secret = isinstance(servers, list) and any("@" in str(server) for server in servers)
    for key in [*sorted(SECRET_KEYS & nats.keys()), *(["servers"] if with_secret else [])]:
        file = tables.source(("nats", key))
        mode = tables.modes.get(file, 0)
        if mode & stat.S_IROTH:
            found = f"a secret in a file with mode {mode:04o}, open to everybody"
            tables.add(("nats", key), found, f"chmod o-r {file}, or a file of its own for the secret")


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
