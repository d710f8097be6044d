"""What a handler's return or exception means to the router. Decided here and nowhere else; nothing here raises."""

from __future__ import annotations

import orjson

from ajhost.api import TerminateTask
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated

_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_GROUP_SHOWN = 3


def outcome_of_result(value: object) -> Outcome:
    """Bytes as they are, text as UTF-8, None as nothing, anything else as JSON."""
    kind = type(value)
    if kind is bytes:
        return Completed(value)  # type: ignore[arg-type]  # narrowed by its exact type, which is what it costs least by
    if value is None:
        return Completed(b"")
    try:
        if isinstance(value, str):
            return Completed(value.encode())
        if isinstance(value, bytes | bytearray | memoryview):
            return Completed(bytes(value))
        return Completed(orjson.dumps(value, option=_JSON))
    except BaseException as error:
        return Failed(f"handler error: the result, of type {kind.__name__}, cannot be sent: {_text(error)}")


def outcome_of_exception(error: BaseException) -> Outcome:
    """TerminateTask ends the task, everything else asks for another try.

    SystemExit and KeyboardInterrupt too: a handler that calls `sys.exit` has failed, and its worker, which serves other
    tasks, goes on.
    """
    if isinstance(error, TerminateTask):
        return Terminated(_text(error) or "TerminateTask")
    return Failed(f"handler error: {describe(error)}")


def describe(error: BaseException) -> str:
    """`ClassName: text`; for a group its first members as well."""
    name, text = type(error).__name__, _text(error)
    if isinstance(error, BaseExceptionGroup):
        members = "; ".join(describe(member) for member in error.exceptions[:_GROUP_SHOWN])
        text = f"{text}: {members}"
    return f"{name}: {text}" if text else name


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "its text cannot be had"
