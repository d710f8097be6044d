"""Parses values that are written as text: sizes like `512M`, servers' addresses, routes, targets, queue groups, inbox
prefixes, HOST:PORT. Each function returns the value, or raises `InvalidValue`, whose text shows no secret.
"""

from __future__ import annotations

import keyword
import re
from urllib.parse import urlsplit

from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.secret_masking import hidden, without_userinfo
from ajhost.protocol.server_url import read_server_url
from ajhost.protocol.subjects import reply_subjects
from ajhost.protocol.task_record import LONGEST_TYPE
from ajhost.settings.errors import InvalidValue, quoted, shown

_ROUTE = re.compile(r"[a-zA-Z0-9_:-]*\Z")
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)([KMGT]?)\Z")
_INBOX = reply_subjects()
_LONGEST_NAME = 128
"""Bytes of a queue group and of an inbox: with a route they are one line to the server, which takes 4096."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LEAST_SIZE = 1 << 20
_SCHEMES = ("nats", "tls")
_SERVER = "nats://HOST:PORT or tls://HOST:PORT"
_HOST = re.compile(r"[^\s/?#@:\[\]]+\Z|\[[0-9a-fA-F:.]+(%\w+)?\]\Z")


def server(url: str) -> str:
    """Returns the address of a NATS server unchanged."""
    if "://" not in url:
        raise InvalidValue(f"{quoted(without_userinfo(url))} without a scheme", _SERVER)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a password may be in the place of the port, so only the scheme is shown
        raise InvalidValue(
            f"{quoted(url.partition('://')[0] + '://...')}, whose host or port is none",
            f"{_SERVER}, an IPv6 address in brackets: nats://[::1]:4222",
        ) from None
    if parts.scheme not in _SCHEMES:
        raise InvalidValue(f"scheme {shown(parts.scheme)} in {quoted(without_userinfo(url))}", _SERVER)
    if not parts.hostname or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidValue(quoted(without_userinfo(url)), _SERVER)
    try:
        read_server_url(url)
    except ValueError as error:
        raise InvalidValue(f"{quoted(without_userinfo(url))} with {error}", _SERVER) from None
    return url


def route(text: str) -> str:
    """Returns a route, the beginning of task types. Types are `^[a-zA-Z0-9_:-]+$` (asyncjobs v0.3.0, task.go)."""
    allowed = 'letters, digits, "_", ":" and "-", or "" for the catch-all'
    if text == "catchall":
        # a router uses the same subject for both
        raise InvalidValue('the route "catchall", which a router cannot tell from the catch-all', allowed)
    if len(text) > LONGEST_TYPE:
        raise InvalidValue(f"a route of {len(text)} characters", f"at most {LONGEST_TYPE}, as of a task's type")
    if not _ROUTE.match(text):
        raise InvalidValue(f"the route {shown(text)}, which no task type begins with", allowed)
    return text


def target(text: str) -> str:
    """Returns a `module:function`; both may have dots."""
    parts = text.split(":")
    names = [name for part in parts for name in part.split(".")]
    if len(parts) != 2 or not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
        raise InvalidValue(shown(text), 'module:function, like "acme.mail:send"')
    return text


def size(value: object) -> int:
    """Returns the bytes of a number, or of a text like `512M`, whose units are powers of 1024."""
    allowed = '0 for no limit, or a size of at least 1M, like "512M" or "1.5G" (K, M, G, T)'
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60
    found = _SIZE.match(str(value)) if number or isinstance(value, str) else None
    if found is None:
        raise InvalidValue(shown(value), allowed)
    size = int(float(found[1]) * _UNITS[found[2]])
    if size and not _LEAST_SIZE <= size < 1 << 60:
        raise InvalidValue(shown(value), allowed)
    return size


def queue_group(text: str) -> str:
    """Returns the name of a NATS queue group."""
    if not text or len(text.encode()) > _LONGEST_NAME or not text.isprintable() or re.search(r"[\s*>]", text):
        raise InvalidValue(hidden(text), f'a name of at most {_LONGEST_NAME} bytes without white space, "*" and ">"')
    return text


def inbox_prefix(text: str) -> str:
    """Returns the prefix of reply subjects. Hosts answer only to such subjects and ignore requests with others."""
    if len(text) > _LONGEST_NAME or not text.isprintable() or not _INBOX.match(f"{text}.x".encode()):
        allowed = f'a subject of at most {_LONGEST_NAME} bytes without wildcards, no "$..." and no "CHORIA_AJ...."'
        raise InvalidValue(hidden(text), f'{allowed}, like "_INBOX"')
    return text


def host_name(text: str) -> str:
    """Returns a name by which browsers may call this host, without a port."""
    if not re.match(r"[\w.-]+\Z", text):
        raise InvalidValue(shown(text), 'a host name without a port, like "jobs.example.net"')
    return text.lower().rstrip(".")


def reason(text: str) -> str:
    """Returns a stable word of `protocol/reasons.py`."""
    known = [reason.value for reason in FailureReason]
    if text not in known:
        raise InvalidValue(shown(text), f"one of {', '.join(known)}")
    return text


def listen(text: str) -> str:
    """Returns the `HOST:PORT` to listen on."""
    host, _, port = text.rpartition(":")
    if not _HOST.match(host) or not re.match(r"[0-9]{1,5}\Z", port) or not 0 < int(port) < 1 << 16:
        raise InvalidValue(shown(text), 'HOST:PORT, like "127.0.0.1:9464" or "[::1]:9464"')
    return text
