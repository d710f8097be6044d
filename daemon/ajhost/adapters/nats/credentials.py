"""Credentials for a server: files are read anew for each connection, in a thread, and checked. While a file is being
replaced, empty or absent, its last good contents are used, and the log says so. Decides whether the settings want TLS.
"""

from __future__ import annotations

import errno
import functools
import logging
import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ajhost.adapters.logs.host_failures_log import HostFailuresLog
from ajhost.adapters.nats.tls import tls_context
from ajhost.adapters.threads import call_in_thread
from ajhost.core.server_pool import Server
from ajhost.protocol import credential_files
from ajhost.protocol.credential_files import CredentialsError, UserCredentials
from ajhost.protocol.server_url import read_server_url
from ajhost.settings.sections import NatsSettings, TlsSettings

_log = logging.getLogger("ajhost.nats")
_LARGEST = 1 << 20


class CredentialsUnusable(Exception):
    """A file cannot be used and has no good contents from before; the text names it and says why."""


@dataclass(frozen=True, slots=True)
class LogInData:
    """The credentials that `connect_and_log_in.py` sends to one server, and signs its nonce with.

    `tls`: None for a connection that is not to be encrypted.
    """

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: UserCredentials | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def servers_of(settings: NatsSettings) -> tuple[Server, ...]:
    urls = map(read_server_url, settings.servers)
    return tuple(
        Server(url.host, url.port, tls=url.scheme == "tls", user=url.user, password=url.password, token=url.token)
        for url in urls
    )


def wants_tls(settings: NatsSettings) -> bool:
    """Whether every connection must be encrypted."""
    return settings.tls is not None or any(server.tls for server in servers_of(settings))


def trusts_interpreter(settings: NatsSettings) -> bool:
    """Whether servers' certificates are compared with the authorities that the interpreter brings."""
    return wants_tls(settings) and (settings.tls is None or settings.tls.ca is None)


class Credentials:
    """The credentials of `[nats]`, with the last good contents of each file."""

    def __init__(self, settings: NatsSettings) -> None:
        self._settings = settings
        self._readers: dict[str, tuple[Path, Callable[[], Any]]] = {}
        for key, path, read in (
            ("creds", settings.creds, credential_files.read_user_credentials),
            ("nkey", settings.nkey, credential_files.read_seed),
            ("password_file", settings.password_file, credential_files.read_word),
            ("token_file", settings.token_file, credential_files.read_word),
        ):
            if path is not None:
                self._readers[key] = (path, functools.partial(_read_file, path, read))
        if wants_tls(settings):
            tls = settings.tls
            place = Path() if tls is None else tls.ca or tls.cert or Path()
            self._readers["tls"] = (place, functools.partial(_read_tls, tls))
        self._good: dict[str, tuple[Any, float]] = {
            key: (word, time.monotonic())
            for key, word in (("password_file", settings.password), ("token_file", settings.token))
            if key in self._readers and word is not None
        }
        self._repeated = HostFailuresLog(_log)

    async def read(self, server: Server) -> LogInData:
        """Reads the credentials for this server anew.

        :raises CredentialsUnusable: when a file cannot be used and never could.
        """
        found = await call_in_thread(self._read_all) if self._readers else {}
        for key, value in found.items():
            if isinstance(value, Exception):
                self._fall_back(key, value)
            else:
                self._good[key] = value, time.monotonic()
        good = {key: value for key, (value, _) in self._good.items()}
        settings = self._settings
        password = good.get("password_file", settings.password)
        token = good.get("token_file", settings.token)
        user = settings.user
        if not (user or token or settings.creds or settings.nkey):
            # the settings name no user: the URL may
            user, password, token = server.user, server.password, server.token
        return LogInData(user, password, token, good.get("creds"), good.get("nkey"), good.get("tls"))

    def _read_all(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, (path, read) in self._readers.items():
            try:
                found[key] = read()
            except CredentialsError as error:
                found[key] = CredentialsUnusable(f"nats.{key}: {path} {error}")
            except OSError as error:
                reason = getattr(error, "reason", None) or error.strerror or error
                where = error.filename or path
                found[key] = CredentialsUnusable(f"nats.{key}: {where}: {str(reason).lower()}")
        return found

    def _fall_back(self, key: str, error: Exception) -> None:
        if key not in self._good:
            raise error
        ago = time.monotonic() - self._good[key][1]
        self._repeated.tell(logging.WARNING, f"{key} {error}", "%s; using what was read %.0f s ago", error, ago)


def _read_tls(tls: TlsSettings | None) -> ssl.SSLContext:
    for path in (tls.ca, tls.cert, tls.key) if tls is not None else ():
        if path is not None:
            _refuse_special(path)
    return tls_context(tls)


def _refuse_special(path: Path) -> None:
    """Raises OSError for a FIFO or a device: the thread that opens it may wait for ever (fifo(7))."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "no regular file", str(path))


def _read_file(path: Path, read: Callable[[bytes], Any]) -> Any:
    _refuse_special(path)
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise CredentialsError(f"has more than {_LARGEST >> 20} MiB")
    return read(content)
