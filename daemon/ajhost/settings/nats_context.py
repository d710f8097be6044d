"""Reads NATS contexts, which the `nats` command keeps in files (ADR-21), for `[nats] context`: finds the file, and
takes servers, TLS and credentials as that command does. Refuses a secret in a file that others may read, and fields
that a host does not support: without such a one it would connect to another server, or as another user.

Fields about JetStream and texts for people mean nothing to a host and are ignored.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ajhost.settings import value_parsers
from ajhost.settings.configuration_files import read_whole
from ajhost.settings.errors import InvalidValue, Problem, shown
from ajhost.settings.secret_files import Files
from ajhost.settings.sections import NatsSettings, TlsSettings

_IGNORED = frozenset(("color_scheme", "description", "name"))
_IGNORED |= {f"jetstream_{key}" for key in ("api_prefix", "domain", "event_prefix")}
_FIELDS = ("url", "token", "user", "password", "creds", "nkey", "cert", "key", "ca", "inbox_prefix", "tls_first")
_FILE_FIELDS = frozenset(("creds", "nkey", "cert", "key", "ca"))
_VAULT = re.compile(r"(op|nsc|env|file|vault|keychain|keyring|data)://", re.IGNORECASE)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):/")
_OPEN = stat.S_IRGRP | stat.S_IROTH


def context_file(name: str, environ: Mapping[str, str]) -> Path:
    """Returns the file of the context `name`: `${XDG_CONFIG_HOME:-~/.config}/nats/context/<name>.json`."""
    base = environ.get("XDG_CONFIG_HOME")
    config = Path(base) if base else _user_home(environ) / ".config"
    return config / "nats" / "context" / f"{name}.json"


def _user_home(environ: Mapping[str, str]) -> Path:
    """:raises InvalidValue: there is none: in a container, a user may have neither HOME nor an entry in /etc/passwd."""
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:
        raise InvalidValue("a user without a home", "HOME or XDG_CONFIG_HOME in the environment") from None


def load_context(name: str, environ: Mapping[str, str], credentials: Path | None) -> tuple[NatsSettings, list[Problem]]:
    """Returns the settings of a context, and its problems. Relative files are looked for beside the context.

    :raises InvalidValue: when there is no such context, or its file cannot be read.
    """
    if not name or "/" in name or ".." in name or "\0" in name:
        raise InvalidValue(shown(name), "the name of a NATS context")
    file = context_file(name, environ)
    fields = _read(name, file)
    return _Reader(file, fields, environ, credentials).settings()


def _read(name: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_whole(file)[0])
    except FileNotFoundError:
        known = sorted(path.stem for path in file.parent.glob("*.json"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {shown(near[0])}?" if near else ""
        allowed = ", ".join(map(shown, known)) or f"none: there are no contexts in {file.parent}"
        raise InvalidValue(f"{shown(name)}, but no {file}", allowed + hint) from None
    except OSError as error:
        raise InvalidValue(
            f"{file}: {(error.strerror or str(error)).lower()}", "a file that this user can read"
        ) from None
    except InvalidValue as unfit:
        raise InvalidValue(f"{file}: {unfit.found}", "a NATS context") from None
    except (ValueError, RecursionError):
        raise InvalidValue(f"{file}, which is not JSON", "a NATS context") from None
    if not isinstance(content, dict):
        raise InvalidValue(f"{file}, which is no JSON object", "a NATS context")
    return content


def _server(text: str) -> str:
    # the nats command also takes a host without a scheme
    url = text.strip()
    return value_parsers.server(url if not url or "://" in url else f"nats://{url}")


class _Reader:
    """Reads one context, field by field."""

    def __init__(
        self, file: Path, fields: dict[str, Any], environ: Mapping[str, str], credentials: Path | None
    ) -> None:
        self._file = file
        # the nats command writes an empty value for a field that is not set
        self._fields = {k: value for k, value in fields.items() if value not in ("", None, False) and k not in _IGNORED}
        self._environ = environ
        self._files = Files(file.parent, credentials)
        self._problems: list[Problem] = []

    def settings(self) -> tuple[NatsSettings, list[Problem]]:
        self._check_fields()
        settings = NatsSettings()
        if "url" in self._fields:
            servers = tuple(filter(None, (self._read("url", _server, part) for part in self._text("url").split(","))))
            settings = replace(settings, servers=servers or settings.servers)
        if prefix := self._one("inbox_prefix", value_parsers.inbox_prefix):
            settings = replace(settings, inbox_prefix=prefix)
        settings = replace(settings, token=self._one("token", str), tls=self._tls())
        # of several credentials the nats command takes the first in this order
        if "user" in self._fields:
            settings = replace(settings, user=self._one("user", str), password=self._one("password", str))
        elif "creds" in self._fields:
            settings = replace(settings, creds=self._one("creds", self._files.creds))
        elif "nkey" in self._fields:
            settings = replace(settings, nkey=self._one("nkey", self._files.nkey))
        return settings, self._problems

    def _tls(self) -> TlsSettings | None:
        if not self._fields.keys() & {"ca", "cert", "key", "tls_first"}:
            return None
        return TlsSettings(
            ca=self._one("ca", self._files.certificates),
            cert=self._one("cert", self._files.certificates),
            key=self._one("key", self._files.private_key),
            first="tls_first" in self._fields,
        )

    def _check_fields(self) -> None:
        for field, value in list(self._fields.items()):
            problem = self._trouble(field, value)
            if problem is not None:
                self._add(field, problem)
                del self._fields[field]
        secret = next((field for field in ("password", "token") if field in self._fields), None)
        if secret is not None and (mode := stat.S_IMODE(self._file.stat().st_mode)) & _OPEN:
            self._add(secret, InvalidValue(f"a secret in a file with mode {mode:04o}", f"chmod 600 {self._file}"))

    def _trouble(self, field: str, value: object) -> InvalidValue | None:
        if field not in _FIELDS:
            return InvalidValue(f"the field {field}, which is not supported", ", ".join(_FIELDS))
        if field == "tls_first":
            return None if value is True else InvalidValue(shown(value), "true or false")
        if not isinstance(value, str):
            return InvalidValue("a value that is no text", "a text")
        scheme = (_SCHEME if field in _FILE_FIELDS else _VAULT).match(value)
        if field != "url" and scheme is not None:
            return InvalidValue(f"the scheme {scheme[1]}://, which is not supported", "the value itself, or a file")
        return None

    def _text(self, field: str) -> str:
        text: str = self._fields[field]
        if field not in _FILE_FIELDS:
            return text
        if text == "~" or text.startswith("~/"):
            text = str(_user_home(self._environ)) + text[1:]
        if field == "creds":  # of all fields, the nats command expands variables in this one
            text = re.sub(r"\$\{?(\w+)\}?", lambda found: self._environ.get(found[1], ""), text)
        return os.path.normpath(text)

    def _one(self, field: str, read: Callable[[str], Any]) -> Any:
        return self._read(field, read, self._text(field)) if field in self._fields else None

    def _read(self, field: str, read: Callable[[str], Any], text: str) -> Any:
        try:
            return read(text)
        except InvalidValue as unfit:
            self._add(field, unfit)
            return None

    def _add(self, field: str, unfit: InvalidValue) -> None:
        self._problems.append(Problem(self._file, field, unfit.found, unfit.allowed))
