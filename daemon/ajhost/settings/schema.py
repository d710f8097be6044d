"""The schema of the configuration file: every table, every key, its type and limits, and in words which values it
allows. `sections.py` has the defaults, `value_parsers.py` reads texts such as sizes and addresses.

Each model is the table of its name. Models have no defaults: a key that no file has is absent from
`model_dump(exclude_unset=True)`. A field's description is the text that a problem shows as allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from ajhost.protocol.secret_masking import hidden
from ajhost.protocol.signature import read_key
from ajhost.settings import python_paths, value_parsers
from ajhost.settings.errors import InvalidValue, shown
from ajhost.settings.secret_files import Files
from ajhost.settings.sections import WorkerSettings

LONGEST = 86_400.0
"""The longest time in the settings, in seconds."""
_CONTROL_NAME = "/control"
_SOCKET_PATH = 107
_MANY = 1_000_000
_SYSTEM = frozenset(
    (
        "/", "//", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home",
        "/lib", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin",
        "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/run", "/var/tmp",
    )
)  # fmt: skip
"""Directories of the whole machine (Filesystem Hierarchy Standard 3.0)."""


def _allowed(text: str, **limits: Any) -> Any:
    """Returns the field of a key that may be absent."""
    return Field(default=None, description=text, **limits)


def _seconds(least: str, **limits: float) -> Any:
    return _allowed(f"a number of seconds, {least} to {LONGEST:.0f}", le=LONGEST, allow_inf_nan=False, **limits)


def _file(method: Callable[[Files, str], object]) -> AfterValidator:
    """Replaces the name of a file by the result of `method`; the `Files` are the context of the validation."""

    def look(name: str, info: ValidationInfo) -> object:
        if not name:
            raise InvalidValue('""', "the name of a file")
        if "\0" in name:
            raise InvalidValue("a name with a NUL", "the name of a file")
        files = info.context
        assert isinstance(files, Files)
        return method(files, name)

    return AfterValidator(look)


def _keys_of(files: Files, name: str) -> list[str]:
    path, text = files.read(name)
    keys = text.split()
    if not keys:
        raise InvalidValue(f"{path}, which is empty", "a file of hexadecimal ed25519 public keys")
    return [_key(key, f"{path}, whose word {number} is ") for number, key in enumerate(keys, start=1)]


def _key(text: str, place: str = "") -> str:
    try:
        return read_key(text).hex()
    except ValueError as error:
        raise InvalidValue(f"{place}{hidden(text)} ({error})", "64 hexadecimal digits, an ed25519 public key") from None


def _runtime(text: str) -> str:
    longest = _SOCKET_PATH - len(_CONTROL_NAME)
    if os.path.normpath(text) in _SYSTEM:
        raise InvalidValue(shown(text), "a directory of the host's own, like /run/ajhost")
    if not Path(text).is_absolute() or "\0" in text or len(str(Path(text)).encode()) > longest:
        raise InvalidValue(shown(text), f"an absolute path of at most {longest} bytes: sockets are made in it")
    return text


def _count(value: object) -> object:
    return WorkerSettings().count if value == "auto" else value


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


Text = Annotated[str, Field(min_length=1)]
Prefix = Annotated[str, AfterValidator(value_parsers.inbox_prefix)]
Target = Annotated[str, AfterValidator(value_parsers.target)]
Pem = Annotated[str, _file(Files.certificates)]
Word = Annotated[str, _file(Files.word)]
Level = Literal["debug", "info", "warning", "error"]


class Tls(_Table):
    ca: Pem = _allowed("the name of a PEM file")
    cert: Pem = _allowed("the name of a PEM file")
    key: Annotated[str, _file(Files.private_key)] = _allowed("the name of a PEM file")
    first: bool = _allowed("true or false")


class Nats(_Table):
    servers: Annotated[list[Annotated[str, AfterValidator(value_parsers.server)]], Field(min_length=1)] = _allowed(
        'a list of nats:// and tls:// addresses, like ["nats://127.0.0.1:4222"]'
    )
    context: Text = _allowed("the name of a NATS context")
    queue_group: Annotated[str, AfterValidator(value_parsers.queue_group)] = _allowed("a name")
    catchall: bool = _allowed("true or false")
    creds: Annotated[str, _file(Files.creds)] = _allowed("the name of a file")
    nkey: Annotated[str, _file(Files.nkey)] = _allowed("the name of a file")
    user: Text = _allowed("a text that is not empty")
    password: Text = _allowed("a text that is not empty")
    password_file: Word = _allowed("the name of a file")
    token: Text = _allowed("a text that is not empty")
    token_file: Word = _allowed("the name of a file")
    inbox_prefix: Prefix = _allowed("a subject")
    reply_prefixes: Annotated[list[Prefix], Field(min_length=1)] = _allowed(
        'a list of subjects, like ["_INBOX"]; absent for all'
    )
    service: bool = _allowed("true or false")
    discover: bool = _allowed("true or false")
    ping_interval: float = _seconds("0.5", ge=0.5)
    ping_timeout: float = _seconds("1", ge=1)
    tls: Tls = _allowed("a table [nats.tls]")


class Python(_Table):
    path: list[Annotated[str, _file(python_paths.importable)]] = _allowed("a list of directories")
    interpreter: Annotated[str, _file(python_paths.interpreter)] = _allowed("the path of a Python interpreter")
    preload: bool = _allowed("true or false")
    allow_open: list[Text] = _allowed('a list of patterns like ["192.0.2.1:5432", "/srv/words.db"]')
    import_timeout: float = _seconds("more than 0", gt=0)
    lifespan: Target = _allowed('module:function, like "acme.app:lifespan"')
    middleware: list[Target] = _allowed('a list of module:function, like ["acme.app:traced"], the outermost first')
    start_timeout: float = _seconds("more than 0", gt=0)
    stop_timeout: float = _seconds("0", ge=0)


class Workers(_Table):
    count: Annotated[int, BeforeValidator(_count)] = _allowed('"auto" or a whole number, 1 to 1024', ge=1, le=1024)
    concurrency: int = _allowed("a whole number, 1 to 10000", ge=1, le=10_000)
    backlog: int = _allowed("a whole number, 0 to 100000", ge=0, le=100_000)
    kill_grace: float = _seconds("0", ge=0)
    drain_timeout: float = _seconds("0", ge=0)
    max_tasks: int = _allowed("a whole number, 0 (never) or more", ge=0, le=1 << 53)
    max_memory: Annotated[int, BeforeValidator(value_parsers.size)] = _allowed("a size")
    default_timeout: float = _seconds("more than 0", gt=0)


class Handler(_Table):
    target: Target = Field(description='module:function, like "acme.mail:send"')
    timeout: float = _seconds("more than 0", gt=0)
    concurrency: int = _allowed("a whole number, 1 to 10000", ge=1, le=10_000)
    host_concurrency: int = _allowed("a whole number, 1 to 10000", ge=1, le=10_000)
    unwrap: bool = _allowed("true or false")
    max_crashes: int = _allowed("a whole number, 0 (never) or more", ge=0, le=_MANY)


class Signature(_Table):
    keys: Annotated[list[Annotated[str, AfterValidator(_key)]], Field(min_length=1)] = _allowed(
        "a list of hexadecimal ed25519 public keys; absent where tasks need no signature"
    )
    key_file: Annotated[str, _file(_keys_of)] = _allowed("the name of a file")
    max_age: float = _seconds("0 (no limit)", ge=0)


class Runtime(_Table):
    directory: Annotated[str, AfterValidator(_runtime)] = _allowed("an absolute path")
    user: Text = _allowed("a user of this machine, or UID:GID")


class Log(_Table):
    level: Level = _allowed('"debug", "info", "warning" or "error"')
    tasks: Literal["failed", "all"] = _allowed('"failed" or "all"')
    format: Literal["auto", "json"] = _allowed('"auto" or "json"')
    levels: dict[Text, Level] = _allowed(
        'a table of loggers\' names with "debug", "info", "warning" or "error" for each'
    )
    limits: dict[Annotated[str, AfterValidator(value_parsers.reason)], Annotated[int, Field(ge=1)]] = _allowed(
        'a table of reasons, like "handler error", with a number of 1 or more for each'
    )


class Http(_Table):
    listen: Annotated[str, AfterValidator(value_parsers.listen)] = Field(description='HOST:PORT, like "127.0.0.1:9464"')
    token_file: Word = _allowed("the name of a file")
    hosts: list[Annotated[str, AfterValidator(value_parsers.host_name)]] = _allowed(
        'a list of host names, like ["jobs.example.net"]'
    )


Route = Annotated[str, AfterValidator(value_parsers.route)]


class Document(_Table):
    """All tables, merged."""

    nats: Nats = _allowed("a table [nats]")
    python: Python = _allowed("a table [python]")
    workers: Workers = _allowed("a table [workers]")
    handlers: dict[Route, Annotated[Handler, Field(description='a table [handlers."<route>"]')]] = Field(
        min_length=1, description='at least one table [handlers."<route>"] with target = "module:function"'
    )
    signature: Signature = _allowed("a table [signature]")
    runtime: Runtime = _allowed("a table [runtime]")
    log: Log = _allowed("a table [log]")
    http: Http = _allowed("a table [http]")


TABLES: dict[tuple[str, ...], type[BaseModel]] = {
    (): Document,
    ("nats",): Nats,
    ("nats", "tls"): Tls,
    ("python",): Python,
    ("workers",): Workers,
    ("signature",): Signature,
    ("runtime",): Runtime,
    ("log",): Log,
    ("http",): Http,
}
"""The model of each table with a fixed name; `table_at` also has that of the handlers' tables."""


def table_at(path: tuple[str, ...]) -> type[BaseModel] | None:
    """Returns the model of the table at `path`; None for no table."""
    return Handler if len(path) == 2 and path[0] == "handlers" else TABLES.get(path)


def kind_of(path: tuple[str, ...]) -> Any:
    """Returns the type of a key, `dict` for a table; None for an unknown key."""
    if table_at(path) is not None:
        return dict
    table = table_at(path[:-1])
    field = None if table is None else table.model_fields.get(path[-1])
    return None if field is None else field.annotation
