"""The limit of a result's size: the server takes `max_payload` bytes, and the router stores a result with its task."""

from __future__ import annotations

from ajhost.protocol.outcome import Completed, Terminated

STORED_OVERHEAD = 256
"""Bytes that the router adds to a task's JSON to store it: field names, a time, `: terminate task` after an error."""


def stored_size(size: int, task_size: int) -> int:
    """Estimates the bytes that the router stores: a result of `size` bytes, in base64, and the task's JSON."""
    return task_size + (size + 2) // 3 * 4 + STORED_OVERHEAD


def too_large(size: int, max_payload: int) -> str:
    """Says that a result of `size` bytes is more than the server takes."""
    return f"result too large: {size} bytes, the server takes {max_payload}"


def as_told(outcome: Completed, max_payload: int, task_size: int) -> Completed | Terminated:
    """Returns the result, or the error to send in its place: see `reply_encoding.py`."""
    size = len(outcome.body)
    stored = stored_size(size, task_size)
    if stored <= max_payload:
        return outcome
    if size > max_payload:
        return Terminated(too_large(size, max_payload))
    return Terminated(
        f"result too large to be stored: its {size} bytes and the task's {task_size} make about {stored}, "
        f"the server takes {max_payload}"
    )
