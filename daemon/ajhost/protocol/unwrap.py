"""Decodes payloads encoded twice, as `ajc tasks add` and the cron scheduler send: base64 in a JSON text for the setting
`unwrap`; JSON, too, for typed handlers where `roles/payload_readers.py` finds that the payload itself does not fit.
"""

from __future__ import annotations

from binascii import a2b_base64

from orjson import JSONDecodeError, loads

from ajhost.protocol import exact_json
from ajhost.protocol.task_record import shown


def unwrap(payload: bytes) -> bytes:
    """Decodes, for the setting `unwrap`, the base64 in a JSON text, as of the cron scheduler.

    Raises ValueError that says which of the two the payload is not.
    """
    try:
        text = loads(payload)
    except JSONDecodeError as error:
        raise ValueError(f"cannot unwrap the payload: it is not JSON: {error}") from None
    if type(text) is not str:
        raise ValueError(f"cannot unwrap the payload: it is not a JSON text but {shown(text)}")
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise ValueError(f"cannot unwrap the payload: its text is not base64: {error}") from None


def json_inside(payload: bytes) -> tuple[bytes, str] | None:
    """Returns, for typed handlers, the JSON inside a JSON text, and its encoding; None if there is none."""
    if payload.lstrip()[:1] != b'"':
        return None
    text: str = exact_json.loads(payload)
    for inner, way in ((text.encode(errors="replace"), "JSON"), (_decoded(text), "base64")):
        if inner is not None and exact_json.is_json(inner):
            return inner, way
    return None


def _decoded(text: str) -> bytes | None:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
