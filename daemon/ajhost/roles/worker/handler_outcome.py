"""Makes the outcome of what a handler returns (bytes, text, nothing or JSON, else `invalid result:`) or raises:
TerminateTask, in a group of exceptions too, or `handler error:` with its text, for SystemExit and `breakpoint()` too.
No other module decides it. No function here raises.
"""

from __future__ import annotations

import os

from ajhost.adapters.linux import os_error_texts
from ajhost.api import TerminateTask
from ajhost.protocol.json_encoding import CannotEncode, encode
from ajhost.protocol.outcome import Completed, Failed, Outcome, Terminated
from ajhost.protocol.reasons import FailureReason
from ajhost.protocol.secret_masking import without_secrets

_STDIN = 0
_GROUP_SHOWN = 3
_GROUP_DEPTH = 3
"""Levels of nested groups in a text: groups can be nested without end, and a text has about 1 KiB."""
_LONGEST = 1 << 14
"""Characters of an exception's text that are looked at."""

# past a metaclass that has a `__name__` of its own
_name_of = type.__dict__["__name__"].__get__


def outcome_of_result(value: object) -> Outcome:
    """Encodes a result: bytes as they are, text as UTF-8, None as nothing, else as JSON (`protocol/json_encoding.py`).

    A result that JSON cannot express ends the task: the next try would return the same.
    """
    kind = type(value)
    if kind is bytes:
        return Completed(value)  # type: ignore[arg-type]  # narrowed by its exact type, the cheapest check
    if value is None:
        return Completed(b"")
    try:
        if isinstance(value, str):
            return Completed(str.encode(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return Completed(bytes(value))
        return Completed(encode(value))
    except CannotEncode as error:
        return Terminated.because(FailureReason.INVALID_RESULT, _text(error))
    except (UnicodeEncodeError, ValueError) as error:
        text = f"a {_name_of(kind)} that cannot be sent: {_text(error)}"
        return Terminated.because(FailureReason.INVALID_RESULT, text)
    except BaseException as error:
        text = f"the result, of type {_name_of(kind)}, cannot be sent: {describe(error)}"
        return Failed.because(FailureReason.HANDLER_ERROR, text)


def outcome_of_exception(error: BaseException) -> Outcome:
    """Returns Terminated for TerminateTask, in a group of exceptions too; Failed, for another try, for any other.

    SystemExit and KeyboardInterrupt are Failed: a handler that calls `sys.exit` has failed, and its worker serves on.
    """
    if (terminated := terminate_task_of(error)) is not None:
        return Terminated(_text(terminated) or "TerminateTask")
    return Failed.because(FailureReason.HANDLER_ERROR, describe(error))


def terminate_task_of(error: BaseException, depth: int = _GROUP_DEPTH) -> TerminateTask | None:
    """Returns the TerminateTask that `error` is or contains: `asyncio.TaskGroup` puts what a task raises in a group."""
    if isinstance(error, TerminateTask):
        return error
    if isinstance(error, BaseExceptionGroup) and depth:
        inside = (terminate_task_of(member, depth - 1) for member in _members(error))
        return next((found for found in inside if found is not None), None)
    return None


def describe(error: BaseException) -> str:
    """Returns `ClassName: text`, for a group with its first members."""
    return _described(error, _GROUP_DEPTH)


def _described(error: BaseException, depth: int) -> str:
    name: str = _name_of(type(error))
    text = _text(error)
    if name == "BdbQuit" and not text and not os.isatty(_STDIN):
        text = "a debugger has no terminal in a worker; `ajhost dev --debug` gives it one"
    if isinstance(error, BaseExceptionGroup) and depth:
        shown = _members(error)[:_GROUP_SHOWN]
        members = "; ".join(_described(member, depth - 1) for member in shown)
        text = f"{text}: {members}"
    if limit := os_error_texts.limit_behind(error):
        text = f"{text} ({limit})".lstrip()
    return f"{name}: {text}" if text else name


def _members(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    # the C attribute, past a subclass that has an `exceptions` of its own
    members: tuple[BaseException, ...] = BaseExceptionGroup.exceptions.__get__(group)
    return members


def _text(error: BaseException) -> str:
    try:
        text = "".join((str(error),))  # a plain str, where `__str__` gave a subclass of it
        # libraries put addresses with passwords into errors, and a router stores the text where others can read it
        return without_secrets(text[: 2 * _LONGEST])[:_LONGEST].rstrip()
    except BaseException:
        return "its text cannot be had"
