"""What may be shown of settings: values in errors, addresses without passwords, all of it for `ajhost check --show`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ajhost.protocol.safe_text import NKEY_SEED
from ajhost.settings.values import Settings

_HIDDEN = "***"
_LONGEST = 80
_KEY_MATERIAL = re.compile(
    rf"{NKEY_SEED}|\beyJ[\w-]{{8,}}|-----BEGIN|\b[0-9a-fA-F]{{64,}}\b|\b[A-Za-z0-9+/]{{64,}}={{0,2}}"
)
"""The seed of an nkey, a JWT, PEM, and what is as long as a key in hexadecimal or base64."""


def hidden(text: str) -> str:
    """In the place of a text that may be a secret, or hold one."""
    return f"a text of {len(text)} characters" if text else '""'


def may_be_secret(text: str) -> bool:
    """Whether a text looks like a key, or like an address with a password in it."""
    return _KEY_MATERIAL.search(text) is not None or "@" in text or "://" in text


def shown(value: object) -> str:
    """What was found, for a problem's text."""
    if isinstance(value, str) and may_be_secret(value):
        return hidden(value)
    match value:
        case None:
            return "nothing"
        case Mapping():
            return "a table"
        case list():
            return "a list" if value else "an empty list"
        case bool() | str():
            text = json.dumps(value, ensure_ascii=False)
        case int() if value.bit_length() > _LONGEST * 3:
            text = f"a number of {value.bit_length()} bits"  # Python writes no more than 4300 digits
        case _:
            text = str(value)
    return _short(text)


def quoted(text: str) -> str:
    """A text as JSON, cut where it is long."""
    return _short(json.dumps(text, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def without_userinfo(url: str) -> str:
    """An address without user name and password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if at else ''}{place}"


def redacted(settings: Settings) -> dict[str, Any]:
    """The settings as plain JSON values: passwords, tokens and what addresses hold of them replaced, paths as text."""
    plain: dict[str, Any] = _plain(asdict(settings))
    nats = plain["nats"]
    nats["servers"] = [without_userinfo(server) for server in nats["servers"]]
    for key in ("password", "token"):
        if nats[key] is not None:
            nats[key] = _HIDDEN
    return plain


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Path():
            return str(value)
    return value
