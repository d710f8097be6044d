"""Loads `Settings` from files and the environment, or raises every problem at once.

The way: `merge.py`, `validation.py` with `schema.py`, then the rules over several keys here.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ajhost.protocol.credential_files import CredentialsError, read_word
from ajhost.settings.errors import InvalidValue, SettingsError
from ajhost.settings.merge import MergedTables
from ajhost.settings.nats_context import load_context
from ajhost.settings.schema import Document
from ajhost.settings.secret_files import Files, open_settings_file
from ajhost.settings.validation import SECRET_KEYS, validate
from ajhost.settings.values import (
    HandlerSettings,
    HttpSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    RuntimeSettings,
    Settings,
    SignatureSettings,
    TlsSettings,
    WorkerSettings,
)

_WHO = ("creds", "nkey", "token", "token_file", "user")
_BESIDE_CONTEXT = ("servers", *_WHO, "password", "password_file", "tls")


def load(file: Path, environ: Mapping[str, str]) -> Settings:
    """Reads `file` and the drop-ins `conf.d/*.toml` beside it, in the order of their names; later ones override.

    Of the environment, CREDENTIALS_DIRECTORY (systemd's), HOME and XDG_CONFIG_HOME (NATS contexts) are looked at.

    :raises SettingsError: with every problem of every file.
    """
    return _Loader(file, environ).load()


class _Loader:
    """One load: what the merged tables must be beyond the schema, and the settings that are made of them."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        directory = environ.get("CREDENTIALS_DIRECTORY")
        self._credentials = Path(directory) if directory else None
        self._files = Files(file.absolute().parent, self._credentials)
        self._tables = MergedTables(file, environ)
        self._whole = self._tables.whole
        self._add = self._tables.add

    def load(self) -> Settings:
        problems = self._tables.problems
        context = self._context()
        if isinstance(nats := self._tables.raw.get("nats"), dict):
            self._check_nats(nats)
            self._check_open(nats)
        self._check_signature()
        document = validate(self._tables, self._files)
        if document is not None and not problems:
            settings = _settings(self._file, document, context)
            self._check_tls(settings.nats.tls)
            if not problems:
                return settings
        raise SettingsError(dict.fromkeys(problems))

    def _context(self) -> NatsSettings | None:
        nats = self._tables.raw.get("nats")
        name = nats.get("context") if isinstance(nats, dict) else None
        if not isinstance(name, str) or not name:
            return None
        try:
            settings, problems = load_context(name, self._environ, self._credentials)
        except InvalidValue as unfit:
            self._add(("nats", "context"), unfit.found, unfit.allowed)
            return None
        self._tables.problems += problems
        return settings

    def _check_nats(self, nats: Mapping[str, Any]) -> None:
        if "context" in nats:
            for key in _BESIDE_CONTEXT:
                if key in nats:
                    self._add(("nats", key), "it beside nats.context", "one of the two")
            return
        self._check_who(nats)
        self._check_pings(nats)
        tls = nats.get("tls")
        if isinstance(tls, dict) and "key" in tls and "cert" not in tls and self._whole:
            self._add(("nats", "tls", "key"), "it without nats.tls.cert", "both or neither")

    def _check_who(self, nats: Mapping[str, Any]) -> None:
        ways = [key for key in _WHO if key in nats]
        if len(ways) > 1:
            self._add(("nats", ways[1]), f"{' and '.join(ways)} together", f"one of {', '.join(_WHO)}")
        passwords = [key for key in ("password", "password_file") if key in nats]
        if len(passwords) > 1:
            self._add(("nats", "password_file"), "it beside nats.password", "one of the two")
        if passwords and "user" not in nats and self._whole:
            self._add(("nats", passwords[0]), "it without nats.user", "both or neither")
        if "user" in nats and not passwords and self._whole:
            self._add(("nats", "user"), "it without a password", "password or password_file beside it")

    def _check_signature(self) -> None:
        """Adds a problem for a table that asks for signatures and has no keys: they would not be looked at."""
        signature = self._tables.raw.get("signature")
        if not self._whole or not isinstance(signature, dict) or signature.keys() & {"keys", "key_file"}:
            return
        if signature.get("max_age"):
            self._add(("signature", "max_age"), "it without signature.keys", "keys or key_file beside it")
        elif not signature:
            self._add(("signature",), "an empty table", "keys or key_file in it; no table for no signatures")

    def _check_pings(self, nats: Mapping[str, Any]) -> None:
        defaults = NatsSettings()
        interval = nats.get("ping_interval", defaults.ping_interval)
        limit = nats.get("ping_timeout", defaults.ping_timeout)
        numbers = all(isinstance(n, int | float) for n in (interval, limit))
        if numbers and limit <= interval:
            key = "ping_timeout" if "ping_timeout" in nats else "ping_interval"
            found = f"a ping_timeout of {limit:g} s and a ping_interval of {interval:g} s"
            self._add(("nats", key), found, "a ping_timeout that is longer than the ping_interval")

    def _check_open(self, nats: Mapping[str, Any]) -> None:
        """Adds a problem for each secret in a settings file that others may read."""
        servers = nats.get("servers")
        with_secret = isinstance(servers, list) and any("@" in str(server) for server in servers)
        for key in [*sorted(SECRET_KEYS & nats.keys()), *(["servers"] if with_secret else [])]:
            file = self._tables.source(("nats", key))
            if problem := open_settings_file(file, self._tables.modes.get(file, 0)):
                self._add(("nats", key), *problem)

    def _check_tls(self, tls: TlsSettings | None) -> None:
        if tls is None:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if tls.ca is not None:
                context.load_verify_locations(tls.ca)
        except (OSError, ssl.SSLError) as error:
            self._add(("nats", "tls", "ca"), f"{tls.ca} ({_reason(error)})", "certificates in PEM")
        try:
            if tls.cert is not None:
                context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:
            found = f"{tls.cert} ({_reason(error)})"
            self._add(("nats", "tls", "cert"), found, "a certificate and the private key that belongs to it")


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error).replace("_", " ").lower()


def _word_of(file: Path) -> str | None:
    """The content of a secret file that was validated: used later while the file cannot be read."""
    try:
        return read_word(file.read_bytes())
    except (OSError, CredentialsError):
        return None


def _settings(file: Path, document: Document, context: NatsSettings | None) -> Settings:
    """Builds the settings of a validated document. Keys that are not set get the defaults of `values.py`."""
    given = document.model_dump(exclude_unset=True, warnings=False)  # validated names have become paths
    nats: dict[str, Any] = given.get("nats", {})
    for key in ("password", "token"):
        if f"{key}_file" in nats:
            nats[key] = _word_of(nats[f"{key}_file"])
    if "tls" in nats:
        nats["tls"] = TlsSettings(**nats["tls"])
    nats.pop("context", None)
    signature: dict[str, Any] = given.get("signature", {})
    keys = dict.fromkeys([*signature.get("keys", ()), *signature.get("key_file", ())])
    runtime: dict[str, Any] = given.get("runtime", {})
    if "directory" in runtime:
        runtime["directory"] = Path(runtime["directory"])
    return Settings(
        file=file,
        handlers=tuple(HandlerSettings(route=route, **table) for route, table in given["handlers"].items()),
        nats=replace(NatsSettings() if context is None else context, **_frozen(nats)),
        python=PythonSettings(**_frozen(given.get("python", {}))),
        workers=WorkerSettings(**given.get("workers", {})),
        signature=SignatureSettings(tuple(keys), signature.get("max_age", 0.0)),
        runtime=RuntimeSettings(**runtime),
        log=LogSettings(**_frozen(given.get("log", {}))),
        http=_http(given["http"]) if "http" in given else None,
        has_file=os.path.exists(file),
    )


def _frozen(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with tuples: of a list its items, of a table its pairs."""
    pairs = {key: tuple(value.items()) for key, value in table.items() if isinstance(value, dict)}
    items = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return {**table, **pairs, **items}


def _http(given: Mapping[str, Any]) -> HttpSettings:
    """The `[http]` table; the host part of `listen` is one of the allowed names."""
    name = given["listen"].rpartition(":")[0].strip("[]").lower()
    hosts = tuple(dict.fromkeys([*given.get("hosts", ()), *([name] if name else [])]))
    return HttpSettings(given["listen"], given.get("token_file"), hosts)
