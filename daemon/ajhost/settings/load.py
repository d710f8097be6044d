"""Reads configuration files and the environment into `Settings`, or raises every problem at once."""

from __future__ import annotations

import codecs
import difflib
import re
import ssl
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ajhost.protocol.credentials import CredentialsError, read_word
from ajhost.settings import environment, redact, toml_file
from ajhost.settings.errors import InvalidValue, Problem, SettingsError
from ajhost.settings.files import Files, configuration_files, is_text, read_whole
from ajhost.settings.nats_context import load_context
from ajhost.settings.schema import DEEPEST, TABLES, Document, table_at
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

_READABLE = "a TOML file that this user can read"
_POSITION = re.compile(r" \(at (.*)\)\Z")
_BARE_ROUTE = re.compile(r"\s*\[\s*handlers\s*\.\s*[^\"'\]]*:")
_SECRET = frozenset(("password", "token"))
_MAY_BE_SECRET = ("nats", "signature")
"""Tables in which a wrong value may be a secret in the wrong key: errors do not show it."""
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_WHO = ("creds", "nkey", "token", "token_file", "user")
_BESIDE_CONTEXT = ("servers", *_WHO, "password", "password_file", "tls")

KeyPath = tuple[str | int, ...]


def load(file: Path, environ: Mapping[str, str]) -> Settings:
    """Reads `file` and the drop-ins `conf.d/*.toml` beside it, in the order of their names; later ones override.

    Of the environment, CREDENTIALS_DIRECTORY (systemd's), HOME and XDG_CONFIG_HOME (NATS contexts) are looked at.

    :raises SettingsError: with every problem of every file.
    """
    return _Loader(file, environ).load()


class _Loader:
    """One load. Holds the merged tables, the file that each key comes from, and the problems found so far."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        directory = environ.get("CREDENTIALS_DIRECTORY")
        self._credentials = Path(directory) if directory else None
        self._files = Files(file.absolute().parent, self._credentials)
        self._raw: dict[str, Any] = {}
        self._sources: dict[tuple[str, ...], Path] = {}
        self._modes: dict[Path, int] = {}
        self._problems: list[Problem] = []
        self._whole = True

    def load(self) -> Settings:
        self._check_path()
        tables, sources, problems = environment.read(self._environ)
        self._read_all()
        self._merge(self._raw, tables, self._file, ())
        self._sources.update(sources)
        self._problems += problems
        context = self._context()
        if isinstance(nats := self._raw.get("nats"), dict):
            self._check_who(nats)
            self._check_open(nats)
        self._check_signature()
        document = self._validate()
        if document is not None and not self._problems:
            settings = _settings(self._file, document, context)
            self._check_tls(settings.nats.tls)
            if not self._problems:
                return settings
        raise SettingsError(dict.fromkeys(self._problems))

    # files

    def _check_path(self) -> None:
        """Adds a problem for a path that is no text: it is told to workers, commands and the page as one."""
        if not is_text(str(self._file.absolute())):
            self._problems.append(Problem(self._file, "file", "a path that is not UTF-8", "a path in UTF-8"))

    def _read_all(self) -> None:
        try:
            files = configuration_files(self._file, self._environ)
        except OSError as error:
            self._read(self._file)
            self._unreadable(
                Path(error.filename), error.strerror or "", "a directory that this user can read"
            )
            return
        for file in files:
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            content, found = read_whole(file)
        except OSError as error:
            self._unreadable(file, error.strerror or str(error), _READABLE)
            return
        except InvalidValue as unfit:
            self._unreadable(file, unfit.found, f"a TOML file, {unfit.allowed}")
            return
        self._modes[file] = mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IWOTH:
            told = f"mode {mode:04o}, which lets everybody write"
            self._problems.append(Problem(file, "file", told, f"chmod o-w {file}"))
        try:
            text = content.removeprefix(codecs.BOM_UTF8).decode()  # editors of Windows write one
            self._merge(self._raw, toml_file.tables(text), file, ())
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            self._unreadable(file, "a byte that is not UTF-8", "TOML in UTF-8", f"line {line}")
        except tomllib.TOMLDecodeError as error:
            self._syntax_error(file, text, str(error))

    def _unreadable(self, file: Path, found: str, allowed: str, key: str = "file") -> None:
        self._whole = False
        self._problems.append(Problem(file, key, found[:1].lower() + found[1:], allowed))

    def _syntax_error(self, file: Path, text: str, message: str) -> None:
        where = _POSITION.search(message)
        reason = message[: where.start()] if where else message
        lines = text.splitlines()
        position = where[1] if where else "file"
        if (number := re.match(r"line (\d+)", position)) is None and where:
            position = f"line {len(lines)}"
        hint = ""
        if number is not None and _BARE_ROUTE.match(lines[int(number[1]) - 1]):
            hint = '; a route with ":" is written in quotes: [handlers."email:new"]'
        self._unreadable(file, f"a TOML syntax error ({reason})", f"TOML 1.0{hint}", position)

    def _merge(self, into: dict[str, Any], new: dict[str, Any], file: Path, path: tuple[str, ...]) -> None:
        for key, value in new.items():
            self._sources[*path, key] = file
            if isinstance(value, dict) and len(path) < DEEPEST:
                if not isinstance(into.get(key), dict):
                    into[key] = {}
                self._merge(into[key], value, file, (*path, key))
            else:
                into[key] = value

    # problems

    def _source(self, path: KeyPath) -> Path:
        names = tuple(part for part in path if isinstance(part, str))
        while names and names not in self._sources:
            names = names[:-1]
        return self._sources.get(names, self._file)

    def _add(self, path: KeyPath, found: str, allowed: str) -> None:
        self._problems.append(Problem(self._source(path), _key(path), found, allowed))

    def _validate(self) -> Document | None:
        try:
            return Document.model_validate(self._raw, context=self._files)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                self._add_error(details)
        return None

    def _add_error(self, details: Mapping[str, Any]) -> None:
        path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
        kind = details["type"]
        if kind == "missing" or (kind == "too_short" and path == ("handlers",)):
            # the missing key may be in a file that could not be read
            if self._whole:
                self._add(path, "nothing", _description(path))
        elif kind == "extra_forbidden":
            self._add(path, "an unknown key", _alternatives(path))
        elif isinstance(unfit := details.get("ctx", {}).get("error"), InvalidValue):
            self._add(path, unfit.found, unfit.allowed)
        elif path[-1] in _SECRET:
            self._add(path, "something else", _description(path))
        elif path[0] in _MAY_BE_SECRET and isinstance(details["input"], str):
            self._add(path, redact.hidden(details["input"]), _description(path))
        else:
            self._add(path, redact.shown(details["input"]), _description(path))

    # rules over several keys

    def _context(self) -> NatsSettings | None:
        nats = self._raw.get("nats")
        name = nats.get("context") if isinstance(nats, dict) else None
        if not isinstance(name, str) or not name:
            return None
        try:
            settings, problems = load_context(name, self._environ, self._credentials)
        except InvalidValue as unfit:
            self._add(("nats", "context"), unfit.found, unfit.allowed)
            return None
        self._problems += problems
        return settings

    def _check_who(self, nats: Mapping[str, Any]) -> None:
        if "context" in nats:
            for key in _BESIDE_CONTEXT:
                if key in nats:
                    self._add(("nats", key), "it beside nats.context", "one of the two")
            return
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
        self._check_pings(nats)
        tls = nats.get("tls")
        if isinstance(tls, dict) and "key" in tls and "cert" not in tls and self._whole:
            self._add(("nats", "tls", "key"), "it without nats.tls.cert", "both or neither")

    def _check_signature(self) -> None:
        signature = self._raw.get("signature")
        if not isinstance(signature, dict) or signature.keys() & {"keys", "key_file"}:
            return
        if signature.get("max_age") and self._whole:
            self._add(("signature", "max_age"), "it without signature.keys", "keys or key_file beside it")

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
        """Adds a problem for a secret in a settings file that others may read. The group may: it is the service's."""
        servers = nats.get("servers")
        with_secret = isinstance(servers, list) and any("@" in str(server) for server in servers)
        for key in [*sorted(_SECRET & nats.keys()), *(["servers"] if with_secret else [])]:
            file = self._source(("nats", key))
            if (mode := self._modes.get(file, 0)) & stat.S_IROTH:
                found = f"a secret in a file with mode {mode:04o}, open to everybody"
                self._add(("nats", key), found, f"chmod o-r {file}, or a file of its own for the secret")

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


def _key(path: KeyPath) -> str:
    text = ""
    for index, part in enumerate(path):
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        is_route = index == 1 and path[0] == "handlers"
        name = part if _BARE.match(part) and not is_route else redact.quoted(part)
        if redact.may_be_secret(part):
            name = f"({redact.hidden(part)})"
        text += f".{name}" if text else name
    return text


def _description(path: KeyPath) -> str:
    """The schema's text on what is allowed at `path`; for an item of a list, that of the list."""
    names = tuple(part for part in path if isinstance(part, str))
    if len(names) == 2 and names[0] == "handlers":
        return 'a table [handlers."<route>"]'
    while (table := table_at(names[:-1])) is None and len(names) > 1:
        names = names[:-1]  # a key of the user's choice, like a logger in [log.levels]
    if table is None or names[-1] not in table.model_fields:
        raise AssertionError(f"nothing is known of {_key(path)}")
    return table.model_fields[names[-1]].description or ""


def _alternatives(path: KeyPath) -> str:
    """The allowed keys of the table in which `path` is unknown, and the one that was probably meant."""
    *names, wrong = (str(part) for part in path)
    table = table_at(tuple(names))
    known = list(table.model_fields) if table is not None else []
    near = [_key((*names, name)) for name in difflib.get_close_matches(wrong, known, n=1)]
    meant = near or [_key((*place, wrong)) for place in _tables_with(wrong)]
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return ", ".join(known) + hint


def _tables_with(name: str) -> Iterator[tuple[str, ...]]:
    return (place for place, table in TABLES.items() if name in table.model_fields)


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
    for key in ("servers", "reply_prefixes"):
        if key in nats:
            nats[key] = tuple(nats[key])
    if "tls" in nats:
        nats["tls"] = TlsSettings(**nats["tls"])
    nats.pop("context", None)
    python: dict[str, Any] = given.get("python", {})
    for key in ("path", "allow_open", "middleware"):
        if key in python:
            python[key] = tuple(python[key])
    signature: dict[str, Any] = given.get("signature", {})
    keys = dict.fromkeys([*signature.get("keys", ()), *signature.get("key_file", ())])
    runtime: dict[str, Any] = given.get("runtime", {})
    if "directory" in runtime:
        runtime["directory"] = Path(runtime["directory"])
    log: dict[str, Any] = given.get("log", {})
    if "levels" in log:
        log["levels"] = tuple(log["levels"].items())
    if "limits" in log:
        log["limits"] = tuple(log["limits"].items())
    return Settings(
        file=file,
        handlers=tuple(HandlerSettings(route=route, **table) for route, table in given["handlers"].items()),
        nats=replace(NatsSettings() if context is None else context, **nats),
        python=PythonSettings(**python),
        workers=WorkerSettings(**given.get("workers", {})),
        signature=SignatureSettings(tuple(keys), signature.get("max_age", 0.0)),
        runtime=RuntimeSettings(**runtime),
        log=LogSettings(**log),
        http=_http(given["http"]) if "http" in given else None,
    )


def _http(given: Mapping[str, Any]) -> HttpSettings:
    """The `[http]` table; the host part of `listen` is one of the allowed names."""
    name = given["listen"].rpartition(":")[0].strip("[]").lower()
    hosts = tuple(dict.fromkeys([*given.get("hosts", ()), *([name] if name else [])]))
    return HttpSettings(given["listen"], given.get("token_file"), hosts)
