"""Loads `Settings` from files, a NATS context and the environment, or raises every problem at once.

The steps: `merge.py`, `nats_context.py`, `validation.py` with `schema.py`; then the settings are built here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ajhost.protocol.credential_files import CredentialsError, read_word
from ajhost.settings.errors import InvalidValue, SettingsError
from ajhost.settings.merge import MergedTables
from ajhost.settings.nats_context import load_context
from ajhost.settings.schema import Document
from ajhost.settings.secret_files import Files
from ajhost.settings.sections import (
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
from ajhost.settings.validation import check_certificates, validate


def load(file: Path, environ: Mapping[str, str]) -> Settings:
    """Reads `file` and the drop-ins `conf.d/*.toml` beside it, in the order of their names; later ones override.

    Variables that are settings override both. CREDENTIALS_DIRECTORY (systemd's), HOME and XDG_CONFIG_HOME (NATS
    contexts) say where files are.

    :raises SettingsError: with every problem of every file.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    credentials = Path(directory) if directory else None
    tables = MergedTables(file, environ)
    context = _context(tables, environ, credentials)
    document = validate(tables, Files(file.absolute().parent, credentials))
    if document is not None and not tables.problems:
        settings = _settings(file, document, context)
        check_certificates(tables, settings.nats.tls)
        if not tables.problems:
            return settings
    raise SettingsError(dict.fromkeys(tables.problems))


def _context(tables: MergedTables, environ: Mapping[str, str], credentials: Path | None) -> NatsSettings | None:
    nats = tables.raw.get("nats")
    name = nats.get("context") if isinstance(nats, dict) else None
    if not isinstance(name, str) or not name:
        return None
    try:
        settings, problems = load_context(name, environ, credentials)
    except InvalidValue as unfit:
        tables.add(("nats", "context"), unfit.found, unfit.allowed)
        return None
    tables.problems += problems
    return settings


def _word_of(file: Path) -> str | None:
    """Returns the content of a validated secret file, which log-ins use if the file cannot be read then."""
    try:
        return read_word(file.read_bytes())
    except (OSError, CredentialsError):
        return None


def _settings(file: Path, document: Document, context: NatsSettings | None) -> Settings:
    """Builds the settings of a validated document. Keys that are not set get the defaults of `sections.py`."""
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
    """Returns the table with tuples in place of lists, and tuples of pairs in place of tables."""
    pairs = {key: tuple(value.items()) for key, value in table.items() if isinstance(value, dict)}
    items = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    return {**table, **pairs, **items}


def _http(given: Mapping[str, Any]) -> HttpSettings:
    """Builds the settings of `[http]`; the host part of `listen` is added to the allowed names."""
    name = given["listen"].rpartition(":")[0].strip("[]").lower()
    hosts = tuple(dict.fromkeys([*given.get("hosts", ()), *([name] if name else [])]))
    return HttpSettings(given["listen"], given.get("token_file"), hosts)
