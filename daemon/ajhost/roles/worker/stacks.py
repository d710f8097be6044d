"""Shows what the running tasks of a worker do, for `ajhost stacks` and for the log at a deadline: the await chain of
each on the loop, the stack of each in a thread.

It only reads: no task is woken or stopped for it. It runs on the loop, so no coroutine is in the middle of a step.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from ajhost.adapters.own_code import PACKAGE
from ajhost.protocol.safe_text import clean
from ajhost.roles.worker.request import Attempt

_LONGEST_CHAIN = 200
_LONGEST_TEXT = 200_000


def stacks_of(attempts: Iterable[Attempt]) -> str:
    """Returns a paragraph for each attempt, oldest first."""
    frames = sys._current_frames()
    threads = {thread.name: thread.ident for thread in threading.enumerate()}
    now = time.monotonic()
    parts = []
    for attempt in sorted(attempts, key=lambda a: a.received):
        labels = attempt.labels()
        since = f"runs for {now - attempt.begun:.1f} s" if attempt.begun else "has not begun"
        left = attempt.deadline - now
        until = f"{left:.1f} s to its deadline" if left > 0 else "past its deadline"
        head = f"task {labels.id} (type {labels.type}, route {labels.route!r}, try {labels.tries}) {since}, {until}"
        frame = frames.get(threads.get(attempt.thread_name) or -1)
        if frame is not None:
            lines = ["  in a thread:", *_thread(frame)]
        elif attempt.work is not None:
            # a private name: a task does not tell otherwise what it waits for (CPython 3.11 to 3.14, asyncio/tasks.py)
            waiter = getattr(attempt.work, "_fut_waiter", None)
            lines = ["  awaits:", *_chain(attempt.work.get_coro(), waiter)]
        else:
            lines = ["  waits for a thread"]
        parts.append("\n".join([head, *lines]))
    return clean("\n\n".join(parts))[:_LONGEST_TEXT]


def _thread(frame: FrameType) -> list[str]:
    return [
        line
        for entry in traceback.extract_stack(frame)
        if not entry.filename.startswith(PACKAGE) and not entry.filename.endswith("/threading.py")
        for line in _shown(entry)
    ]


def _chain(awaited: Any, waiter: Any) -> list[str]:
    """Returns the lines of the await chain, from the handler's coroutine to `waiter`, which it waits for in the end."""
    lines: list[str] = []
    for _ in range(_LONGEST_CHAIN):
        frame, following = _step(awaited)
        if frame is None:
            lines.append(f"    {_thing(awaited if waiter is None else waiter)}")
            break
        if not frame.f_code.co_filename.startswith(PACKAGE):
            lines += _shown(traceback.extract_stack(frame, limit=1)[-1])
        if following is None:
            break
        awaited = following
    return lines


def _step(awaited: Any) -> tuple[FrameType | None, Any]:
    for frame, following in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
        if hasattr(awaited, frame):
            return getattr(awaited, frame), getattr(awaited, following)
    return None, None


def _thing(awaited: Any) -> str:
    """Returns the repr of a future or the like, cut: it can be the application's own."""
    try:
        return repr(awaited)[:300]
    except Exception as error:
        return f"a {type(awaited).__name__} ({type(error).__name__} when it was shown)"


def _shown(entry: traceback.FrameSummary) -> Iterator[str]:
    yield f"    {entry.filename}:{entry.lineno} in {entry.name}"
    if entry.line:
        yield f"        {entry.line}"
