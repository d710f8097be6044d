"""The settings as `ajhost check --show` prints them: without passwords and tokens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ajhost.protocol.secret_masking import MASK, without_userinfo
from ajhost.settings.sections import Settings


def redacted(settings: Settings) -> dict[str, Any]:
    """Returns the settings as plain JSON values, with paths as texts and without the secrets of keys and addresses."""
    plain: dict[str, Any] = _plain(asdict(settings))
    nats = plain["nats"]
    nats["servers"] = [without_userinfo(server) for server in nats["servers"]]
    for key in ("password", "token"):
        if nats[key] is not None:
            nats[key] = MASK
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
