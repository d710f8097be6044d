"""The settings as frozen values: all that the rest of the program sees of them, with the defaults.

Standard library only, so that workers never import the validator. Each part of the program receives its own section,
never the whole. Defaults are defined only here; `etc/ajhost.toml` repeats them, and a test compares.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ajhost.settings.cpus import usable_cpus

DEFAULT_FILE = Path("/etc/ajhost/ajhost.toml")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`[nats.tls]`: certificate authority, client certificate and key, handshake before INFO."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    first: bool = False


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """`[nats]`: the servers, and the host's credentials. Files are kept as paths, since each log-in reads them anew.

    `service`: whether the host answers `nats micro`. `discover`: whether servers that a server names are tried as well.
    `ping_interval`, `ping_timeout`: seconds without a byte after which a server gets a PING, and after which the
    connection is ended.
    """

    servers: tuple[str, ...] = field(default=("nats://127.0.0.1:4222",), repr=False)  # may hold passwords
    queue_group: str = "ajhost"
    catchall: bool = False
    creds: Path | None = None
    nkey: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    inbox_prefix: str = "_INBOX"
    reply_prefixes: tuple[str, ...] = ()
    service: bool = True
    discover: bool = True
    ping_interval: float = 2.0
    ping_timeout: float = 5.0
    tls: TlsSettings | None = None


@dataclass(frozen=True, slots=True)
class PythonSettings:
    """`[python]`: the interpreter that imports the handlers, and the entries put in front of its `sys.path`.
    `allow_open`: patterns of what an import may leave open for all workers to share.
    """

    path: tuple[Path, ...] = ()
    interpreter: Path = Path(sys.executable)
    preload: bool = True
    import_timeout: float = 60.0
    allow_open: tuple[str, ...] = ()
    lifespan: str | None = None
    middleware: tuple[str, ...] = ()
    start_timeout: float = 20.0
    stop_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`[workers]`: how many there are, how much each may hold, and how long steps may take. Seconds and bytes."""

    count: int = field(default_factory=usable_cpus)
    concurrency: int = 16
    backlog: int = 1000
    kill_grace: float = 1.0
    drain_timeout: float = 30.0
    max_tasks: int = 0
    max_memory: int = 0
    default_timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """`[handlers."<route>"]`: the function that serves a route. `""` is the catch-all."""

    route: str
    target: str
    timeout: float | None = None
    concurrency: int | None = None
    unwrap: bool = False
    max_crashes: int = 0
    host_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureSettings:
    """`[signature]`: hex ed25519 public keys; a task must bear a signature of one of them.

    `max_age`: seconds after its `created` from which on a signed task is a replay; 0 for no limit.
    """

    keys: tuple[str, ...] = ()
    max_age: float = 0.0


def _default_runtime_directory() -> Path:
    """Returns /run/ajhost; for a user with a session, one in the session's (XDG Base Directory Specification)."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    return Path(session, "ajhost") if session and os.geteuid() != 0 else Path("/run/ajhost")


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """`[runtime]`: the directory of ledger, lock and control socket, a tmpfs; and the user that root becomes."""

    directory: Path = field(default_factory=_default_runtime_directory)
    user: str | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`[log]`."""

    level: str = "info"
    tasks: str = "failed"
    format: str = "auto"
    levels: tuple[tuple[str, str], ...] = ()
    """Pairs of a logger's name and its level."""
    limits: tuple[tuple[str, int], ...] = ()
    """Pairs of a reason's word, and how many records of it a process writes in `LOG_REPEAT` seconds."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`[http]`: where metrics, health and the page are served; absent means off.

    `token_file` has the word that page and status ask for; its content is validated. `hosts`: names in lower case by
    which browsers may call this host, besides its addresses and `localhost`.
    """

    listen: str
    token_file: Path | None = None
    hosts: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the HTTP server."""
        name = self.listen.rpartition(":")[0].strip("[]")
        return name in ("localhost", "::1") or name.startswith("127.")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, as loaded. Only the supervisor and the commands have all of them.

    `file`: where the file is, or would be. `has_file`: whether it exists; if not, all settings are in the environment.
    """

    file: Path
    handlers: tuple[HandlerSettings, ...]
    nats: NatsSettings = NatsSettings()
    python: PythonSettings = PythonSettings()
    workers: WorkerSettings = WorkerSettings()
    signature: SignatureSettings = SignatureSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings | None = None
    has_file: bool = True

    @property
    def origin(self) -> str:
        """Returns where the settings are from, for people."""
        return str(self.file) if self.has_file else "settings of the environment"
